# hubel in a container, for processors by default:
#
#   docker build -t hubel .
#   docker run --rm -v "$PWD:/data" hubel predict photos/ --save out/
#
# For NVIDIA GPUs, with PyTorch's CUDA wheels (never run so far), and `--gpus all` to run it:
#
#   docker build -t hubel:cuda --build-arg TORCH_INDEX= .
#   docker run --rm --gpus all --shm-size 2g -v "$PWD:/data" hubel:cuda train flowers/
FROM python:3.13-slim

# PyTorch's index of wheels without CUDA, several GB smaller. Empty: those of PyPI, which have CUDA on Linux.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG EXTRAS=onnx,int8

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONDONTWRITEBYTECODE=1

WORKDIR /opt/hubel
COPY pyproject.toml constraints.txt README.md LICENSE NOTICE ./
COPY src ./src
RUN python -m pip install ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} -c constraints.txt ".[${EXTRAS}]" \
    && python -m compileall -q "$(python -c 'import hubel; print(hubel.__path__[0])')"

# Files in /data belong to whoever runs the container with `--user "$(id -u):$(id -g)"`. Converted networks are kept
# between runs with `-v hubel-cache:/home/hubel/.cache`.
RUN useradd --create-home hubel && mkdir -p /home/hubel/.cache /data && chown -R hubel /home/hubel /data
USER hubel
WORKDIR /data
ENTRYPOINT ["hubel"]
CMD ["--help"]
