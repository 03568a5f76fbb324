# docker build -t bids-qsm .        (BuildKit, as Docker 23 and later, buildx and podman have it)
#
# Where pip needs settings or certificates of the site, give them as secrets; nothing of them stays
# in the image:
#   --secret id=pipconf,src=/etc/pip.conf --secret id=ca,src=/etc/ssl/certs/ca-certificates.crt

FROM python:3.11-slim AS build

# Files are of one date, and bytecode does not depend on dates: equal commits give equal images, and
# what numba keeps stays valid when a registry or Apptainer cuts dates to whole seconds.
ENV PIP_CACHE_DIR=/var/cache/pip \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PYTHONHASHSEED=0 \
    SOURCE_DATE_EPOCH=315532800
WORKDIR /src
COPY container/requirements.lock container/build-tools.lock ./
RUN --mount=type=cache,target=/var/cache/pip \
    --mount=type=secret,id=pipconf,target=/etc/pip.conf,required=false \
    --mount=type=secret,id=ca,target=/etc/ssl/certs/ca-certificates.crt,required=false \
    python -m venv --without-pip /opt/tools \
    && python -m pip --python /opt/tools/bin/python install --no-deps --require-hashes \
        -r build-tools.lock \
    && python -m pip --python /opt/tools/bin/python wheel --no-deps --require-hashes \
        --no-build-isolation -w /wheels -r requirements.lock

COPY pyproject.toml README.md LICENSE ./
COPY bids_qsm bids_qsm
# -I: whatever of the host's Python settings and packages leaks in (Apptainer), they are not used.
# Tests of packages are large, and nothing here runs them.
RUN python -m pip --python /opt/tools/bin/python wheel --no-deps --no-index --no-build-isolation \
        -w /wheels . \
    && python -m venv --without-pip /opt/bids-qsm \
    && python -m pip --python /opt/bids-qsm/bin/python install --no-deps --no-index --no-compile \
        /wheels/*.whl \
    && python -m pip --python /opt/bids-qsm/bin/python check \
    && find /opt/bids-qsm/bin -type f -exec sed -i '1s|^#!.*/python$|& -IuB|' {} + \
    && find /opt/bids-qsm/lib -type d -name tests -prune -exec rm -r {} + \
    && /opt/tools/bin/cyclonedx-py environment --output-reproducible -o /opt/bids-qsm/sbom.json \
        /opt/bids-qsm/bin/python \
    && python -m compileall -q --invalidation-mode unchecked-hash /opt/bids-qsm/lib \
    && find /opt/bids-qsm -exec touch -h -d @$SOURCE_DATE_EPOCH {} +


FROM python:3.11-slim

LABEL org.opencontainers.image.title="bids-qsm" \
      org.opencontainers.image.description="R2* and susceptibility maps, deep-grey labels, tables and a report from a BIDS dataset" \
      org.opencontainers.image.licenses="Apache-2.0"

# A generic processor: code that was compiled at build time serves every machine, with equal results.
ENV PATH=/opt/bids-qsm/bin:$PATH \
    LC_ALL=C.UTF-8 \
    PYTHONNOUSERSITE=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    NUMBA_CPU_NAME=generic \
    NUMBA_CACHE_DIR=/opt/caches/numba \
    MPLCONFIGDIR=/opt/caches/matplotlib

COPY --from=build /opt/bids-qsm /opt/bids-qsm
# The main job once, on one small series: the image keeps what numba compiles for it.
RUN --mount=type=bind,source=data_examples/bids,target=/data \
    PYTHONHASHSEED=0 python -m bids_qsm /data /tmp/warm-up participant -v --nprocs 1 --omp-nthreads 1 \
    && rm -rf /tmp/* \
    && chmod -R a+rX /opt/caches \
    && python -c "import bids_qsm; print(bids_qsm.__version__)" > /version

USER 1000:1000
WORKDIR /tmp
# Python leaves SIGTERM to the system, which a container's first process never gets.
STOPSIGNAL SIGINT
ENTRYPOINT ["bids-qsm"]
