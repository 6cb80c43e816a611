#!/bin/bash
# Starts a ModelTrainer's script; README.md of the SDK's drivers tells how. The last lines are the job's own.
set -eE

SM_DRIVERS_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
SM_ML_DIR=${SM_DRIVERS_DIR%/input/data/*}

fail() {
    local status=$?
    if [ ! -s "$SM_ML_DIR/output/failure" ]; then
        mkdir -p "$SM_ML_DIR/output"
        echo "The training script could not be started: $BASH_COMMAND ended with exit code $status." \
            >> "$SM_ML_DIR/output/failure"
    fi
    exit "$status"
}
trap fail ERR

SM_PYTHON_CMD=$(command -v python3 || command -v python) || {
    echo "The image has no Python: neither python3 nor python is on PATH ($PATH)." >&2
    false
}

# Becomes COMMAND: nothing stands between it and the signals of a stop.
run_command() {
    trap - ERR
    echo "Executing command: $1"
    exec /bin/bash -c "$1"
}

run_driver() {
    trap - ERR
    exec "$SM_PYTHON_CMD" "$SM_DRIVERS_DIR/distributed_drivers/$1"
}

# Without an argument the code is a folder, otherwise an archive in it.
enter_code() {
    cd "$SM_ML_DIR/input/data/code"
    if [ -n "$1" ]; then tar -xzf "$1"; fi
}

install_requirements() {
    "$SM_PYTHON_CMD" "$SM_DRIVERS_DIR/scripts/install_requirements.py" "$1"
    # shellcheck disable=SC1091
    source "$SM_ML_DIR/input/sm_training.env"
}

"$SM_PYTHON_CMD" "$SM_DRIVERS_DIR/scripts/environment.py"
# shellcheck disable=SC1091
source "$SM_ML_DIR/input/sm_training.env"

