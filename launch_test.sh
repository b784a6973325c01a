#!/usr/bin/env bash
# Restore and measure with trained weights: ./launch_test.sh --help
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/scripts/launch_common.sh"
launch test options/vrt/gopro_rgbspike_local.json "$@"
