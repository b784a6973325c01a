#!/usr/bin/env bash
# Train on one or more GPUs, or on the CPU: ./launch_train.sh --help
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/scripts/launch_common.sh"
launch train options/vrt/006_train_vrt_videodeblurring_gopro_rgbspike.json "$@"
