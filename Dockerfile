# The image that launch/kubernetes.py's pods run.
#
#   docker build -t registry/lockstep:1 .                                 for CPUs
#   docker build -t registry/lockstep:1-cuda --build-arg EXTRAS=cuda .    with CUDA's libraries, for GPUs
#
# By hand on a GPU box (NCCL passes data through shared memory, of which containers have 64 MiB; kernels that the driver
# compiles are kept beside the run):
#
#   docker run --rm --gpus=all --shm-size=1g --ulimit memlock=-1 -v "$PWD/runs:/runs" -e CUDA_CACHE_PATH=/runs/.cuda-cache
#       registry/lockstep:1-cuda --num_gpus=4 --model_dir=/runs/first
#
# For reproducible images name the base by its digest: --build-arg BASE=python:3.12-slim@sha256:...

ARG BASE=python:3.12-slim

FROM ${BASE} AS wheels
WORKDIR /src
COPY setup.py pyproject.toml ./
# A package without modules has the same requirements, so that TensorFlow is installed anew only when
# pyproject.toml changes.
RUN touch README.md LICENSE && pip wheel --no-cache-dir --no-deps --wheel-dir=/requirements .
COPY . .
RUN rm -rf build ./*.egg-info && pip wheel --no-cache-dir --no-deps --wheel-dir=/package .

FROM ${BASE}
ARG EXTRAS=""
RUN --mount=type=bind,from=wheels,source=/requirements,target=/wheels \
    pip install --no-cache-dir --root-user-action=ignore "$(echo /wheels/*.whl)${EXTRAS:+[$EXTRAS]}"
RUN --mount=type=bind,from=wheels,source=/package,target=/wheels \
    pip install --no-cache-dir --root-user-action=ignore --no-deps --force-reinstall /wheels/*.whl

# By number, so that Kubernetes can see that it isn't root; launch/kubernetes_objects.py has the same. /tmp is the one folder
# that has to be writable.
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /tmp --shell /usr/sbin/nologin lockstep
ENV HOME=/tmp PYTHONUNBUFFERED=1 NVIDIA_DRIVER_CAPABILITIES=compute,utility
# Modules of your own are found here: FROM this image, COPY my_module.py ./
WORKDIR /app
USER 10001:10001
ENTRYPOINT ["python", "-m", "trainer.main"]
