"""Gaussian process regression over the levels of a space: small, exact, fast enough to ask a thousand times.

Matern 5/2 with a length for each axis and the noise told with each observation (Rasmussen and Williams,
"Gaussian Processes for Machine Learning", 2006, chapters 2 and 5). Lengths, amplitude and the noise that
nobody told are the most probable ones under a broad lognormal prior.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_solve, solve_triangular
from scipy.optimize import minimize

Matrix = np.ndarray
JITTER = 1e-8
LENGTH, LENGTH_SPREAD = math.log(1.0), 0.8
"""Prior of a length: axes are scaled to 0..1, so that a length of 1 changes slowly along all of it."""
NOISE, NOISE_SPREAD = math.log(0.05), 1.0
"""Prior of the standard deviation that nobody told, as a share of that of the values."""
STEPS = 25


@dataclass(frozen=True)
class Kernel:
    """Logs of: length by group of columns, amplitude and untold noise (standard deviations)."""

    groups: Matrix
    lengths: Matrix
    amplitude: float = 0.0
    noise: float = NOISE

    @classmethod
    def prior(cls, groups: Matrix) -> Kernel:
        return cls(groups, np.full(int(groups.max()) + 1, LENGTH))

    def between(self, left: Matrix, right: Matrix) -> Matrix:
        """Covariance (n, m) of points (n, columns) and (m, columns)."""
        scale = np.exp(-self.lengths)[self.groups]
        return math.exp(2 * self.amplitude) * matern(_distance(left * scale, right * scale))


@dataclass(frozen=True)
class Process:
    """What is known after some observations; `at` tells of other points."""

    kernel: Kernel
    points: Matrix
    chol: Matrix
    weights: Matrix
    mean: float
    scale: float

    @classmethod
    def of(
        cls, kernel: Kernel, points: Matrix, values: Matrix, variance: Matrix, mean: float | None = None
    ) -> Process:
        """From points (n, columns), values (n,) the variance told with each. `mean`: far from all."""
        middle = float(values.mean()) if mean is None else mean
        scale = float((values - middle).std()) or 1.0
        covariance = kernel.between(points, points)
        covariance[np.diag_indices_from(covariance)] += (
            variance / scale**2 + math.exp(2 * kernel.noise) + JITTER
        )
        chol = np.linalg.cholesky(covariance)
        weights = cho_solve((chol, True), (values - middle) / scale, check_finite=False)
        return cls(kernel, points, chol, weights, middle, scale)

    def at(self, points: Matrix) -> tuple[Matrix, Matrix]:
        """Mean and standard deviation (m,) of the function itself, its noise left out."""
        cross = self.kernel.between(self.points, points)
        solved = solve_triangular(self.chol, cross, lower=True, check_finite=False)
        left = math.exp(2 * self.kernel.amplitude) - (solved**2).sum(0)
        return self.mean + self.scale * (self.weights @ cross), self.scale * np.sqrt(np.maximum(left, 1e-12))


def fitted(
    groups: Matrix, points: Matrix, values: Matrix, variance: Matrix, mean: float | None = None
) -> Kernel:
    """The most probable kernel for these observations."""
    first = Kernel.prior(groups)
    count, axes = len(points), len(first.lengths)
    middle = float(values.mean()) if mean is None else mean
    scale = float((values - middle).std()) or 1.0
    target, told = (values - middle) / scale, variance / scale**2
    apart = np.zeros((count, count, axes))
    for column, group in enumerate(groups):
        apart[:, :, group] += (points[:, None, column] - points[None, :, column]) ** 2

    def loss(theta: Matrix) -> tuple[float, Matrix]:
        lengths, amplitude, noise = theta[:axes], theta[axes], theta[axes + 1]
        inverse = np.exp(-2 * lengths)
        distance = np.sqrt(apart @ inverse + 1e-18)
        signal = math.exp(2 * amplitude) * matern(distance)
        extra = math.exp(2 * noise)
        covariance = signal + np.diag(told + extra + JITTER)
        try:
            chol = np.linalg.cholesky(covariance)
        except np.linalg.LinAlgError:
            return 1e12, np.zeros_like(theta)
        inverted = cho_solve((chol, True), np.eye(count), check_finite=False)
        weights = inverted @ target
        value = 0.5 * float(target @ weights) + float(np.log(np.diag(chol)).sum())
        inner = inverted - np.outer(weights, weights)
        # d k / d log length = amplitude * 5/3 (1 + sqrt5 d) exp(-sqrt5 d) * squared distance along the axis
        root = math.sqrt(5) * distance
        slope = math.exp(2 * amplitude) * 5 / 3 * (1 + root) * np.exp(-root)
        by_length = 0.5 * np.einsum("ij,ijk->k", inner * slope, apart) * inverse
        gradient = np.concatenate(
            [by_length, [float((inner * signal).sum()), extra * float(np.trace(inner))]]
        )
        centre = np.concatenate([np.full(axes, LENGTH), [0.0, NOISE]])
        spread = np.concatenate([np.full(axes, LENGTH_SPREAD), [1.0, NOISE_SPREAD]])
        away = (theta - centre) / spread
        return value + 0.5 * float(away @ away), gradient + away / spread

    begin = np.concatenate([first.lengths, [first.amplitude, first.noise]])
    bounds = [(-3.0, 4.0)] * axes + [(-2.5, 2.5), (-7.0, 1.0)]
    found = minimize(loss, begin, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": STEPS})
    return Kernel(groups, found.x[:axes], float(found.x[axes]), float(found.x[axes + 1]))


def matern(distance: Matrix) -> Matrix:
    """Matern 5/2 of distances in lengths."""
    root = math.sqrt(5) * distance
    value: Matrix = (1 + root + root**2 / 3) * np.exp(-root)
    return value


def _distance(left: Matrix, right: Matrix) -> Matrix:
    square = (left**2).sum(1)[:, None] + (right**2).sum(1)[None, :] - 2 * left @ right.T
    distance: Matrix = np.sqrt(np.maximum(square, 1e-18))
    return distance
