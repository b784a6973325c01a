# shellcheck shell=bash
# Shared by launch_train.sh and launch_test.sh: arguments, data preparation, choice of processes. To be sourced.

ROOT="$(CDPATH='' cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
# shellcheck source=scripts/shell_lib.sh
source "$ROOT/scripts/shell_lib.sh"

FLAGS="--opt --gpus --set --prepare-data --generate-lmdb --force-prepare --dataset-root --gopro-root --spike-root --max-restarts --stop-code --resume --debug --quiet --help"

usage() {
    local demo=" [--resume]" demo_help="" restarts="
  --resume           continue an interrupted call, keeping its frames in results/<task>"
    if [[ $MODE == train ]]; then
        demo=" [--demo] [--max-restarts N] [--stop-code N]"
        restarts="
  --max-restarts N   restart all processes after a failure, up to N times; they resume from the newest checkpoint
  --stop-code N      exit code if a signal stops the training before its last step (default: 0)"
        demo_help="
  --demo             make a small data set, train on it, test, write pictures and videos: minutes on a CPU"
    fi
    cat <<EOF
./launch_$MODE.sh [GPU_COUNT] [CONFIG.json] [--prepare-data] [--generate-lmdb] [--force-prepare]
    [--dataset-root P] [--gopro-root P] [--spike-root P] [--gpus 0,2]$demo
    [--set KEY=VALUE ...] [--debug] [--quiet] [--help]

  GPU_COUNT          number of GPUs, 0 for the CPU (default: 1 if there is a GPU, else 0)
  CONFIG.json        option file, also as --opt CONFIG.json (default: $DEFAULT_CONFIG)
  --gpus 0,2         use these GPUs; without GPU_COUNT all of them$demo_help$restarts
  --set KEY=VALUE    change options for this run, dotted keys and JSON values: --set train.total_iter=200;
                     relative paths in them start at the project's folder
  --dataset-root P   read sharp, blurred and spike folders below P instead of those in CONFIG.json
  --spike-root P     read the spikes from P/train and P/test
  --gopro-root P     folder of the downloaded GoPro set, for --prepare-data
  --prepare-data     first bring the downloaded sets into the layout that the options expect
  --generate-lmdb    like --prepare-data, then write and read LMDB folders: faster, 8 MB of disk per frame
  --force-prepare    like --prepare-data, but replace what was prepared before
  --debug            show the traceback of an error
  --quiet            show only warnings, errors and results

Python: \$PYTHON, else an active environment that satisfies requirement.txt, else .venv here, created on first use.
Several machines: NNODES, NODE_RANK, MASTER_ADDR and MASTER_PORT (or PET_NNODES, ...), or one SLURM task per node. If
the platform sets WORLD_SIZE, one plain process is started that reads RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and
MASTER_PORT; without LOCAL_RANK and with a GPU_COUNT above 1, they count machines. docs/clusters.md has examples.
EOF
}

# from_home PATH: replace a leading ~, which the shell leaves in --dataset-root=~/x.
from_home() {
    if [[ "$1" == "~" || "$1" == "~/"* ]]; then printf '%s' "$HOME${1:1}"; else printf '%s' "$1"; fi
}

# from_caller PATH: make a path absolute that was typed in a folder other than the checkout.
from_caller() {
    local path
    path="$(from_home "$1")"
    if [[ "$path" == /* || "$PWD" == "$ROOT" ]]; then printf '%s' "$path"; else printf '%s' "$PWD/$path"; fi
}

# say_where KEY=VALUE: paths in options start at the checkout; say so where one exists in the caller's folder.
say_where() {
    local path="${1#*=}"
    path="${path//\"/}"
    if [[ "$PWD" == "$ROOT" || "$path" == /* || ! -e "$path" ]]; then return; fi
    case "${1%%=*}" in
        *dataroot_* | *meta_info_file | *pretrained_net? | *shipped_netG | *weights | *spynet_path | path.root)
            say "note: --set $1 is taken from $ROOT, not from this folder; for the one here give $PWD/$path"
            ;;
    esac
}

die_unknown() {
    local flag hint="" given="${1//_/-}"
    for flag in $FLAGS; do
        if [[ "$given" == --?* && ("$flag" == "$given"* || "$given" == "$flag"* || "${flag:0:5}" == "${given:0:5}") ]]; then
            hint="; did you mean $flag?"
            break
        fi
    done
    die 2 "unknown argument $1${hint:-; --help lists the known ones}"
}

# progress WORDS...: say what is being done, unless --quiet is given.
progress() {
    if [[ " ${PLAIN_FLAGS[*]-} " != *" --quiet "* ]]; then say "$*"; fi
}

# die_missing NAME: refuse an option file that is not there; Python knows which one is alike.
die_missing() {
    local near hint="see options/vrt/"
    near="$(PYTHONPATH="$ROOT" "${PYTHON:-python3}" -c 'import pathlib, sys
from utils.utils_zoo import near_option_file
print(near_option_file(pathlib.Path(sys.argv[1])))' "$1" 2>/dev/null)" || true
    if [[ -n "$near" ]]; then hint="did you mean $near?"; fi
    die 2 "no option file $1; $hint"
}

set_config() {
    if [[ -n "$CONFIG" ]]; then die 2 "two option files: $CONFIG and $1; give one"; fi
    CONFIG="$(from_home "$1")"
}

parse_arguments() {
    GPU_COUNT="" CONFIG="" GPUS="" DEMO=false PREPARE=false LMDB=false
    DATASET_ROOT="" GOPRO_ROOT="" SPIKE_ROOT="" RESTARTS="" STOP_CODE=""
    PREPARE_ARGS=() PROGRAM_ARGS=() SETS=() PLAIN_FLAGS=()
    while (($#)); do
        case "$1" in
            --opt=* | --gpus=* | --set=* | --dataset-root=* | --gopro-root=* | --spike-root=* | --max-restarts=* | --stop-code=*)
                set -- "${1%%=*}" "${1#*=}" "${@:2}"
                ;;
        esac
        case "$1" in
            --opt | --gpus | --set | --dataset-root | --gopro-root | --spike-root | --max-restarts | --stop-code)
                if [[ -z "${2:-}" || "$2" == --* ]]; then die 2 "$1 needs a value; --help shows how"; fi
                ;;
        esac
        case "$1" in
            --help | -h) usage && exit 0 ;;
            --opt) set_config "$2" && shift ;;
            --gpus) GPUS="$2" && shift ;;
            --dataset-root) DATASET_ROOT="$(from_caller "$2")" && shift ;;
            --gopro-root) GOPRO_ROOT="$(from_caller "$2")" && shift ;;
            --spike-root) SPIKE_ROOT="$(from_caller "$2")" && shift ;;
            --set)
                if [[ ! "$2" =~ $KEY_VALUE ]]; then die 2 "--set $2: expected KEY=VALUE, such as train.total_iter=200"; fi
                while [[ "${2:-}" =~ $KEY_VALUE ]]; do say_where "$2" && SETS+=("$2") && shift; done
                ;;
            --demo)
                if [[ $MODE != train ]]; then die 2 "--demo belongs to ./launch_train.sh, which tests as well"; fi
                DEMO=true
                ;;
            --max-restarts | --stop-code)
                if [[ $MODE != train ]]; then die 2 "$1 belongs to ./launch_train.sh"; fi
                if [[ ! "$2" =~ ^[0-9]+$ ]]; then die 2 "$1 $2: expected an integer of 0 or more"; fi
                if [[ $1 == --max-restarts ]]; then RESTARTS=$((10#$2)); else STOP_CODE="$2"; fi
                shift
                ;;
            --prepare-data) PREPARE=true ;;
            --generate-lmdb) PREPARE=true && LMDB=true && PREPARE_ARGS+=(--generate-lmdb) ;;
            --force-prepare) PREPARE=true && PREPARE_ARGS+=(--force) ;;
            --resume)
                if [[ $MODE != test ]]; then die 2 "--resume belongs to ./launch_test.sh; training always resumes where it stopped"; fi
                PROGRAM_ARGS+=(--resume)
                ;;
            --debug) PROGRAM_ARGS+=(--debug) && PLAIN_FLAGS+=(--debug) ;;
            --quiet) PROGRAM_ARGS+=(--quiet) && PLAIN_FLAGS+=(--quiet) ;;
            -*) die_unknown "$1" ;;
            *[!0-9]*) set_config "$1" ;;
            *)
                if [[ -n "$GPU_COUNT" ]]; then die 2 "two GPU counts: $GPU_COUNT and $1; give one"; fi
                GPU_COUNT="$1"
                ;;
        esac
        shift
    done
    if [[ -n "$STOP_CODE" ]]; then PROGRAM_ARGS+=(--stop-code "$STOP_CODE"); fi
    if ((${#SETS[@]})); then PROGRAM_ARGS+=(--set "${SETS[@]}"); fi
}
KEY_VALUE='^[A-Za-z_][A-Za-z0-9_.]*='

check_arguments() {
    if $DEMO; then
        if [[ -n "$CONFIG$DATASET_ROOT$GOPRO_ROOT$SPIKE_ROOT$STOP_CODE" ]] || $PREPARE; then
            die 2 "--demo has its own options and data; combine it only with GPU_COUNT, --gpus, --max-restarts, --set, --debug and --quiet"
        fi
        CONFIG=options/vrt/demo.json
        return
    fi
    if [[ -z "$CONFIG" ]]; then CONFIG="$DEFAULT_CONFIG"; elif [[ -f "$CONFIG" ]]; then CONFIG="$(from_caller "$CONFIG")"; fi
    if [[ "$CONFIG" != *.json && -f "$ROOT/options/vrt/$CONFIG.json" ]]; then CONFIG="options/vrt/$CONFIG.json"; fi
    if [[ "$CONFIG" == /* ]]; then CONFIG_PATH="$CONFIG"; else CONFIG_PATH="$ROOT/$CONFIG"; fi
    if [[ ! -f "$CONFIG_PATH" ]]; then die_missing "$CONFIG"; fi
    if [[ -n "$GOPRO_ROOT" ]] && ! $PREPARE; then say "note: --gopro-root has no effect without --prepare-data"; fi
    if $PREPARE && { ((${WORLD_SIZE:-1} > 1)) || ((NODES > 1)); }; then
        die 2 "--prepare-data cannot be used in a run of several machines; prepare once on one, then start the run without it"
    fi
}

# Fills GPUS_HERE with the usable GPUs, named as in CUDA_VISIBLE_DEVICES.
find_gpus() {
    local count="" device
    if command -v nvidia-smi >/dev/null; then
        count="$(nvidia-smi -L 2>/dev/null | grep -c '^GPU')" || true
    elif [[ -e /dev/nvidia0 || -e /dev/kfd || -e /dev/dxg ]]; then
        count="$("$PYTHON" -c 'import torch; print(torch.cuda.device_count())' 2>/dev/null)" || true
    fi
    if [[ ! "$count" =~ ^[0-9]+$ ]]; then count=0; fi
    GPUS_HERE=()
    if [[ -z "${CUDA_VISIBLE_DEVICES+set}" ]]; then
        for ((device = 0; device < count; device++)); do GPUS_HERE+=("$device"); done
    else
        for device in ${CUDA_VISIBLE_DEVICES//,/ }; do
            if [[ $device != -1 ]] && ((${#GPUS_HERE[@]} < count)); then GPUS_HERE+=("$device"); fi
        done
    fi
}

# Applies --gpus, then fills or checks GPU_COUNT.
choose_gpus() {
    local index chosen="" present
    find_gpus
    present=${#GPUS_HERE[@]}
    if [[ -n "$GPUS" ]]; then
        if [[ ! "$GPUS" =~ ^[0-9]+(,[0-9]+)*$ ]]; then die 2 "--gpus $GPUS: expected numbers with commas, such as 0,2"; fi
        present=0
        for index in ${GPUS//,/ }; do
            if ((10#$index >= ${#GPUS_HERE[@]})); then
                die 2 "--gpus $GPUS: there is no GPU $index; ${#GPUS_HERE[@]} present, numbered from 0"
            fi
            chosen+=",${GPUS_HERE[10#$index]}"
            present=$((present + 1))
        done
        export CUDA_VISIBLE_DEVICES="${chosen#,}"
        GPU_COUNT="${GPU_COUNT:-$present}"
    fi
    GPU_COUNT=$((10#${GPU_COUNT:-$((present > 0 ? 1 : 0))}))
    if ((GPU_COUNT > present)); then
        die 2 "GPU_COUNT is $GPU_COUNT, expected at most $present, the number of usable GPUs (0: the CPU); see $PYTHON scripts/doctor.py"
    fi
    if ((GPU_COUNT == 0)); then export CUDA_VISIBLE_DEVICES=""; fi
}

# Prints the first host of a SLURM list: "gpu[03-05,9],big1" -> gpu03.
first_host() {
    [[ "$1" =~ ^([^][,]+)(\[([0-9]+))? ]] && printf '%s' "${BASH_REMATCH[1]}${BASH_REMATCH[3]:-}"
}

# Sets NODES and RENDEZVOUS, how torchrun's processes of several machines meet, from the environment: our own variables,
# those of a platform, torchrun's (PET_...), SLURM's.
find_nodes() {
    local hosts="${SLURM_STEP_NODELIST:-${SLURM_JOB_NODELIST:-${SLURM_NODELIST:-}}}" node main
    if [[ -n "${WORLD_SIZE:-}" && -z "${LOCAL_RANK:-}" ]] && ((10#${GPU_COUNT:-0} > 1)); then
        NNODES="${NNODES:-${PET_NNODES:-$WORLD_SIZE}}" NODE_RANK="${NODE_RANK:-${PET_NODE_RANK:-${RANK:-}}}"
        unset WORLD_SIZE RANK
    fi
    NNODES="${NNODES:-${PET_NNODES:-}}" NODE_RANK="${NODE_RANK:-${PET_NODE_RANK:-}}"
    NODES="${NNODES:-${SLURM_STEP_NUM_NODES:-${SLURM_NNODES:-${SLURM_JOB_NUM_NODES:-1}}}}"
    node="${NODE_RANK:-${SLURM_NODEID:-}}"
    if [[ ! "$NODES" =~ ^[1-9][0-9]*$ ]]; then die 2 "NNODES is $NODES, expected the number of machines, 1 or more"; fi
    if ((NODES == 1)) || [[ -n "${WORLD_SIZE:-}" ]]; then return; fi
    if [[ ! "$node" =~ ^[0-9]+$ ]] || ((10#$node >= NODES)); then
        die 2 "NNODES is $NODES and NODE_RANK is ${node:-not set}; set it to this machine's number, 0 to $((NODES - 1))"
    fi
    if [[ -z "$NNODES" ]] && ((${SLURM_STEP_NUM_TASKS:-${SLURM_NTASKS:-$NODES}} > NODES)); then
        die 2 "SLURM starts more tasks than nodes; start one per node: srun --ntasks-per-node=1"
    fi
    main="${MASTER_ADDR:-${PET_MASTER_ADDR:-$(first_host "$hosts" || true)}}"
    if [[ -z "$main" ]]; then die 2 "NNODES is $NODES and MASTER_ADDR is not set; set it to the first machine's address"; fi
    RENDEZVOUS=("--node_rank=$((10#$node))" "--master_addr=$main" "--master_port=${MASTER_PORT:-${PET_MASTER_PORT:-29500}}")
    if [[ -z "$NNODES" && -n "${SLURM_JOB_ID:-}" ]]; then # each job has a port of its own; nodes may start minutes apart
        export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1       # after a restart, old addresses must not be found
        RENDEZVOUS=(--rdzv-backend=c10d "--rdzv-id=$SLURM_JOB_ID" "--local-addr=${SLURMD_NODENAME:-$(hostname)}"
            "--rdzv-endpoint=$main:${MASTER_PORT:-$((20000 + SLURM_JOB_ID % 10000))}"
            "--rdzv-conf=is_host=$((10#$node == 0)),read_timeout=900")
    fi
}

# Sets COMMAND, which runs a program of this project in the chosen number of processes.
choose_processes() {
    local count cores
    COMMAND=("$PYTHON")
    if [[ -n "${WORLD_SIZE:-}" ]]; then
        if [[ -n "$RESTARTS" ]]; then die 2 "--max-restarts: the platform starts the processes here; let it restart them"; fi
        if [[ -n "$GPUS" ]]; then export CUDA_VISIBLE_DEVICES="$GPUS"; fi
        return
    fi
    choose_gpus
    count=$((GPU_COUNT > 1 ? GPU_COUNT : 1))
    if ((NODES > 1)); then
        COMMAND+=(scripts/torchrun.py "--nnodes=$NODES" "--nproc_per_node=$count" "${RENDEZVOUS[@]}")
    elif ((count > 1 || ${RESTARTS:-0} > 0)); then
        COMMAND+=(scripts/torchrun.py --standalone "--nproc_per_node=$count")
    fi
    if ((${RESTARTS:-0} > 0)); then COMMAND+=("--max-restarts=$RESTARTS"); fi
    if ((count > 1)); then
        cores="$(getconf _NPROCESSORS_ONLN)"
        export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$((cores > count ? cores / count : 1))}"
    fi
}

prepare_data() {
    local arguments=()
    if [[ -n "$GOPRO_ROOT" ]]; then arguments+=(--gopro-root "$GOPRO_ROOT"); fi
    if [[ -n "$SPIKE_ROOT" ]]; then arguments+=(--spike-root "$SPIKE_ROOT"); fi
    if [[ -n "$DATASET_ROOT" ]]; then arguments+=(--dataset-root "$DATASET_ROOT"); fi
    run_stoppable "$PYTHON" scripts/data_preparation/prepare_gopro_spike_dataset.py \
        ${arguments[@]+"${arguments[@]}"} ${PREPARE_ARGS[@]+"${PREPARE_ARGS[@]}"} ${PLAIN_FLAGS[@]+"${PLAIN_FLAGS[@]}"} ||
        exit $?
}

# runtime_config FILE: print the path of a copy of an option file with other roots or LMDB folders, in the experiment's or
# results folder. runtime_config FILE --check: only check the options, before data are made, which may take hours.
runtime_config() {
    local arguments=(--mode "$MODE" --opt "$1")
    if [[ -n "$DATASET_ROOT" ]]; then arguments+=(--dataset-root "$DATASET_ROOT"); fi
    # Prepared spikes are below the data set, beside their manifest; --spike-root was only their source.
    if [[ -n "$SPIKE_ROOT" ]] && ! $PREPARE; then arguments+=(--spike-root "$SPIKE_ROOT"); fi
    if $LMDB; then arguments+=(--lmdb); fi
    if ((${#SETS[@]})); then arguments+=(--set "${SETS[@]}"); fi
    "$PYTHON" scripts/runtime_config.py "${arguments[@]}" "${@:2}"
}

# demo_run PROGRAM OPTION_FILE TASK [ARGUMENTS...] [--set KEY=VALUE ...]
demo_run() {
    local program=$1 file=$2 task=$3
    shift 3
    local sets=(${SETS[@]+"${SETS[@]}"} "task=$task") arguments=()
    while (($#)) && [[ $1 != --set ]]; do arguments+=("$1") && shift; done
    if (($#)); then sets+=("${@:2}"); fi
    run_stoppable "${COMMAND[@]}" "$program" --opt "options/vrt/$file" ${PLAIN_FLAGS[@]+"${PLAIN_FLAGS[@]}"} \
        ${arguments[@]+"${arguments[@]}"} --set "${sets[@]}" || exit $?
}

run_demo() {
    local pair task=demo clip=demo_test_01 file
    for pair in ${SETS[@]+"${SETS[@]}"}; do
        if [[ $pair == task=* ]]; then task="${pair#task=}"; fi
    done
    local quick='val.metrics=["psnr"]' guide="netG.guide.weights=experiments/$task/models/best_G.pth"
    local one=("datasets.test.dataroot_gt=datasets/demo/test_GT/$clip"
        "datasets.test.dataroot_lq=datasets/demo/test_GT_blurred/$clip"
        "datasets.test.dataroot_spike=datasets/demo/GOPRO_Large_spike_seq/test/$clip"
        "datasets.test.dataroot_instants=datasets/demo/test_GT_instants/$clip")
    for file in demo demo_guided_vrt; do runtime_config "options/vrt/$file.json" --check || exit $?; done
    run_stoppable "$PYTHON" scripts/data_preparation/make_demo_dataset.py ${PLAIN_FLAGS[@]+"${PLAIN_FLAGS[@]}"} || exit $?
    progress "== 1 of 2: the guide, which sees the spikes around each moment"
    demo_run main_train_vrt.py demo.json "$task" --set "$quick"
    demo_run main_test_vrt.py demo.json "$task"
    progress "== 2 of 2: VRT behind it; while it trains, only the middle frame of each clip is measured"
    demo_run main_train_vrt.py demo_guided_vrt.json "${task}_guided_vrt" --set "$quick" "$guide" val.center_frame_only=true
    demo_run main_test_vrt.py demo_guided_vrt.json "${task}_guided_vrt" --set "$guide"
    progress "== eight instants of each blurred frame of one clip"
    demo_run main_test_vrt.py demo.json "$task" --slowmo 8 --set "$quick" "val.task_name=${task}_slowmo" "${one[@]}"
    run_stoppable "$PYTHON" scripts/compare.py "results/$task" "results/${task}_guided_vrt" \
        ${PLAIN_FLAGS[@]+"${PLAIN_FLAGS[@]}"} || exit $?
    cat <<EOF

blurred | spikes | restored | sharp: results/$task/comparison.png, and as a video results/$task/comparison.mp4
eight instants of one blurred frame: results/${task}_slowmo/instants.png, as a video results/${task}_slowmo/$clip.mp4
all numbers: results/$task/report.html, metrics.json; the training run: experiments/$task (tensorboard --logdir experiments/$task)
next: your own video   python scripts/data_preparation/simulate_spike_dataset.py --video FILE --split test --out datasets/mine
      GoPro + spikes   ./launch_train.sh --prepare-data --gopro-root P --spike-root P
EOF
}

# launch MODE DEFAULT_CONFIG ARGUMENTS...: MODE is train or test.
launch() {
    MODE=$1 DEFAULT_CONFIG=$2
    shift 2
    parse_arguments "$@"
    find_nodes
    check_arguments
    # shellcheck source=scripts/setup_env.sh
    source "$ROOT/scripts/setup_env.sh"
    cd "$ROOT"
    choose_processes
    if $DEMO; then
        run_demo
        return
    fi
    if $PREPARE; then
        runtime_config "$CONFIG" --check || exit $?
        prepare_data
    fi
    if [[ -n "$DATASET_ROOT" ]] || $LMDB || { [[ -n "$SPIKE_ROOT" ]] && ! $PREPARE; }; then
        CONFIG="$(runtime_config "$CONFIG")" || exit $?
        progress "options: $CONFIG"
    fi
    exec "${COMMAND[@]}" "main_${MODE}_vrt.py" --opt "$CONFIG" ${PROGRAM_ARGS[@]+"${PROGRAM_ARGS[@]}"}
}
