"""From the best trials to a winner: measured again, certified, tried under stress, and said."""
