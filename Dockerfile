# docker build -t newcomer . && docker run --rm -v "$PWD/runs:/data/runs" newcomer          the demo; its report lies in runs/demo
# docker run --rm -v "$PWD:/data" newcomer newcomer --help                                  any other command
FROM python:3.12-slim
ARG EXTRAS=all

WORKDIR /source
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src src
RUN pip install --no-cache-dir --extra-index-url https://download.pytorch.org/whl/cpu --constraint constraints.txt ".[$EXTRAS]"

WORKDIR /data
CMD ["newcomer", "demo"]
