#!/bin/bash
# bids-qsm on SLURM: an array of jobs processes the subjects, then one job does the group level.
#
#   bash slurm-array.sh          submit both; the jobs' logs appear in this folder
#   bash slurm-array.sh LIST     the same for the subjects in LIST, one on a line
#
# The same command again does only what is not done yet: a finished subject takes seconds, and one
# that was killed goes on where it was.  Fill in the next two paragraphs; sbatch options of your
# site (--partition, --account) are further #SBATCH lines.  Cores and memory are told to bids-qsm.

#SBATCH --job-name=bids-qsm
#SBATCH --cpus-per-task=4
#SBATCH --mem=8G
#SBATCH --time=04:00:00
#SBATCH --requeue --open-mode=append    # a job whose node is lost starts again, and goes on

DATASET=dataset                # BIDS dataset, only read
OUTPUT=derivatives             # on a file system that all nodes see
IMAGE=bids-qsm.sif             # Apptainer image; empty: the bids-qsm that is on PATH
BIND=()                        # folders that options name: (--bind /project/masks:/project/masks:ro)
PARTICIPANT=()                 # options: (--preset consensus --with swi)
GROUP=()                       # options of the group level: (--model /project/models.toml)
GROUP_JOB=(--mem=16G)          # sbatch options of the group level, in the place of those above
SUBJECTS_PER_JOB=1             # more, where jobs would be shorter than minutes or too many
JOBS_AT_ONCE=50

# module load apptainer

set -eu
DATASET=$(realpath -e "$DATASET")
mkdir -p "$OUTPUT"
OUTPUT=$(realpath "$OUTPUT")
inside=()
if [ -n "$IMAGE" ]; then
    inside=(apptainer exec --cleanenv --no-home --bind "$DATASET:$DATASET:ro" --bind "$OUTPUT"
            "${BIND[@]}" "$(realpath -e "$IMAGE")")
fi

bids_qsm() {  # LEVEL [OPTION...]
    : "${SLURM_CPUS_PER_TASK:?write a line #SBATCH --cpus-per-task=...}"
    : "${SLURM_MEM_PER_NODE:?write a line #SBATCH --mem=...}"
    "${inside[@]}" bids-qsm "$DATASET" "$OUTPUT" "$@" --nprocs "$SLURM_CPUS_PER_TASK" \
        --mem-gb "$((SLURM_MEM_PER_NODE / 1024))"
}

case "${1:-} ${2:-}" in
"participant "*)
    last=$((SLURM_ARRAY_TASK_ID * SUBJECTS_PER_JOB))
    mapfile -t subjects < <(sed -n "$((last - SUBJECTS_PER_JOB + 1)),${last}p" "$2")
    status=0
    bids_qsm participant --participant-label "${subjects[@]}" "${PARTICIPANT[@]}" || status=$?
    [ $status -eq 18 ] || exit $status  # 18: they have no series that could be processed
    ;;
"group "*)
    bids_qsm group "${GROUP[@]}"
    ;;
*)
    list=$(mktemp "$PWD/subjects-XXXXXX.txt")  # the jobs read it when they start
    if [ -n "${1:-}" ]; then
        grep . "$1" > "$list"
    else
        (cd "$DATASET" && printf '%s\n' sub-*/) | tr -d / > "$list"
    fi
    n_jobs=$((($(wc -l < "$list") + SUBJECTS_PER_JOB - 1) / SUBJECTS_PER_JOB))
    array=$(sbatch --parsable --array="1-$n_jobs%$JOBS_AT_ONCE" "$0" participant "$list")
    # afterok: only if all subjects went well; afterany: with those that there are
    group=$(sbatch --parsable --dependency="afterok:$array" --kill-on-invalid-dep=yes \
        "${GROUP_JOB[@]}" "$0" group)
    echo "Subjects of $list: jobs ${array}_1 to ${array}_$n_jobs; then the group level: job $group."
    ;;
esac
