# The operator's image: `docker build --tag REGISTRY/airflow-tuner:TAG .`

# Everything that is installed is named by its hash, the build backend included.
FROM python:3.13-slim AS wheel
WORKDIR /source
COPY requirements/dev.txt requirements/
RUN pip install --no-cache-dir --no-compile --require-hashes -r requirements/dev.txt
COPY pyproject.toml README.md LICENSE ./
COPY controller controller
RUN pip wheel --no-deps --no-build-isolation --wheel-dir /wheel .

FROM python:3.13-slim
COPY requirements/runtime.txt /tmp/
# No compiled copies: they would add about the size of the packages again.
RUN pip install --no-cache-dir --no-compile --require-hashes -r /tmp/runtime.txt && rm /tmp/runtime.txt
COPY --from=wheel /wheel /tmp/wheel
RUN pip install --no-cache-dir --no-compile --no-deps /tmp/wheel/*.whl
USER 65532:65532
ENTRYPOINT ["airflow-tuner"]
