#!/bin/bash
# bids-qsm on a Dask cluster of its own, inside one SLURM job:
#
#   sbatch slurm-dask.sh
#
# The first node has the scheduler and bids-qsm itself, which hands one series after the other to
# the workers; when it ends, all ends.  A worker that dies is started again, and what it had in hand
# is done again.  A second submission does only what is not done yet.  Fill in the next two
# paragraphs; sbatch options of your site (--partition, --account) are further #SBATCH lines.

#SBATCH --job-name=bids-qsm
#SBATCH --ntasks=8                      # workers: each has one series at a time
#SBATCH --cpus-per-task=4
#SBATCH --mem-per-cpu=2G
#SBATCH --time=12:00:00
#SBATCH --no-kill                       # when a node is lost, the others go on

DATASET=dataset                # BIDS dataset, only read
OUTPUT=derivatives             # on a file system that all nodes see, as is this folder
IMAGE=bids-qsm.sif             # Apptainer image; empty: bids-qsm[dask] is on PATH
BIND=()                        # folders that options name: (--bind /project/masks:/project/masks:ro)
PARTICIPANT=()                 # options: (--preset consensus --with swi)
INTERFACE=()                   # network that the nodes share, if not the usual: (--interface ib0)

# module load apptainer

set -eu
DATASET=$(realpath -e "$DATASET")
mkdir -p "$OUTPUT"
OUTPUT=$(realpath "$OUTPUT")
private=$(mktemp -d "$PWD/dask-XXXXXX")  # nobody else can read it
trap 'jobs -p | xargs -r kill 2> /dev/null || true; rm -rf "$private"' EXIT
export DASK_CONFIG=$private/dask.yaml
inside=()
if [ -n "$IMAGE" ]; then
    inside=(apptainer exec --cleanenv --no-home --bind "$DATASET:$DATASET:ro" --bind "$OUTPUT"
            --bind "$private" --env "DASK_CONFIG=$DASK_CONFIG" "${BIND[@]}"
            "$(realpath -e "$IMAGE")")
fi

# A scheduler runs whatever it is sent: only who has this key may talk to it.
key=$private/key.pem
openssl req -x509 -newkey rsa:3072 -nodes -subj /CN=bids-qsm -days 30 -keyout "$key" -out "$key" \
    2> "$private/openssl.log" || { cat "$private/openssl.log"; exit 1; }
cat > "$DASK_CONFIG" <<END
distributed:
  comm:
    default-scheme: tls
    require-encryption: true
    tls:
      ca-file: "$key"
      scheduler: {cert: "$key", key: "$key"}
      worker: {cert: "$key", key: "$key"}
      client: {cert: "$key", key: "$key"}
  scheduler: {http: {routes: []}}
  worker: {http: {routes: []}}
logging: {distributed: warning}
END

address=$private/scheduler.json
"${inside[@]}" dask scheduler --scheduler-file "$address" --port 0 --no-dashboard "${INTERFACE[@]}" &
scheduler=$!
until [ -s "$address" ]; do
    kill -0 "$scheduler" || { echo "The scheduler has ended: see above why." >&2; exit 1; }
    sleep 1
done

"${inside[@]}" bids-qsm "$DATASET" "$OUTPUT" participant --executor "dask:$address" \
    --omp-nthreads "$SLURM_CPUS_PER_TASK" "${PARTICIPANT[@]}" &
run=$!

# of the memory, 1 GiB is left for what is no series
memory_gib=$((SLURM_MEM_PER_CPU * SLURM_CPUS_PER_TASK / 1024 - 1))
(
    srun --ntasks="$SLURM_NTASKS" --cpus-per-task="$SLURM_CPUS_PER_TASK" --kill-on-bad-exit=0 --no-kill \
        "${inside[@]}" dask worker --scheduler-file "$address" --nthreads 1 --no-dashboard \
        --memory-limit 0 --resources "memory_gib=$memory_gib" --death-timeout 60 "${INTERFACE[@]}"
    echo "No worker is left: see above why." >&2
    kill "$run"
) &
wait "$run"
