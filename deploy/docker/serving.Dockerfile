# TensorFlow Serving with the exported versions in the image. The context is the folder of the exports:
#
#   docker build --file deploy/docker/serving.Dockerfile --tag spamscore-serving artifacts/exports/spam_ham
#
# The image serves the version that models.config had in service when it was built. To follow `spamscore serve` without
# a new image, mount the folder instead, as compose.yaml does.

ARG SERVING_IMAGE=docker.io/tensorflow/serving:2.20.0
FROM ${SERVING_IMAGE}
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="spamscore-serving" \
    org.opencontainers.image.description="TensorFlow Serving with the exported versions of spamscore" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}"
COPY --chown=10001:10001 . /models/spam_ham
# models.config has the path of the exports where they were made.
RUN sed -i 's|^\( *base_path: \)".*"$|\1"/models/spam_ham"|' /models/spam_ham/models.config \
    && grep -q '^ *base_path: "/models/spam_ham"$' /models/spam_ham/models.config
USER 10001:10001
EXPOSE 8500 8501
ENTRYPOINT ["tensorflow_model_server", "--port=8500", "--rest_api_port=8501"]
CMD ["--model_config_file=/models/spam_ham/models.config", \
     "--model_config_file_poll_wait_seconds=5", \
     "--file_system_poll_wait_seconds=5", \
     "--allow_version_labels_for_unavailable_models=true", \
     "--enable_batching=true", \
     "--batching_parameters_file=/models/spam_ham/batching.config", \
     "--monitoring_config_file=/models/spam_ham/monitoring.config", \
     "--rest_api_timeout_in_ms=30000"]
