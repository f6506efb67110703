#!/bin/sh
# smollm2-135m, spec 0a1b2c3d4e5f: written by servetune export; edit the spec instead.
# Starts vllm 0.32.0 from serve.yaml, in a container or on a host.
#   VLLM          the program (default: vllm)
#   MODEL_DIR     folder of the weights, when not the model named there
#   HOST PORT     where it listens (default: 127.0.0.1 8000)
#   API_KEY_FILE  file with the key that clients must send
# Further arguments go to vllm and win over serve.yaml.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
# A uid without a passwd entry has no other name, and torch asks for one while it is imported.
USER="${USER:-$(id -un 2>/dev/null || true)}"
export USER="${USER:-vllm}" LOGNAME="${LOGNAME:-${USER:-vllm}}"
export VLLM_NO_USAGE_STATS=1
export VLLM_DO_NOT_TRACK=1
export DO_NOT_TRACK=1
export HF_HUB_DISABLE_TELEMETRY=1
export HF_HUB_OFFLINE=1
export VLLM_MAX_N_SEQUENCES=8
if [ -n "${CREDENTIALS_DIRECTORY:-}" ] && [ -r "$CREDENTIALS_DIRECTORY/api-key" ]; then
    API_KEY_FILE=$CREDENTIALS_DIRECTORY/api-key
fi
if [ -n "${API_KEY_FILE:-}" ]; then
    VLLM_API_KEY=$(cat "$API_KEY_FILE")
    [ -n "$VLLM_API_KEY" ] || { echo "run.sh: $API_KEY_FILE is empty" >&2; exit 2; }
    export VLLM_API_KEY
fi
if [ -n "${MODEL_DIR:-}" ]; then
    [ -f "$MODEL_DIR/config.json" ] || { echo "run.sh: no config.json in $MODEL_DIR" >&2; exit 2; }
    set -- "$MODEL_DIR" "$@"
else
    set -- .models/smollm2-135m-instruct "$@"
fi
exec "${VLLM:-vllm}" serve "$@" --config "$here/serve.yaml" \
    --host "${HOST:-127.0.0.1}" --port "${PORT:-8000}"
