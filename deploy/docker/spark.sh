#!/usr/bin/env bash
# Entry point of the image spamscore-spark.
#
#   spark.sh executor            an executor on Kubernetes; Spark's driver sets the variables
#   spark.sh worker URL          a worker of a standalone cluster
#   spark.sh COMMAND ...         any other command, such as luigi --module pipeline Nightly
set -euo pipefail

spark=$(python3 -c 'import importlib.util; print(importlib.util.find_spec("pyspark").submodule_search_locations[0])')
export SPARK_HOME=$spark

case "${1:-}" in
executor)
    shift
    options=()
    # SPARK_JAVA_OPT_0, SPARK_JAVA_OPT_1, …: one option each, so that an option can have spaces.
    for ((number = 0; ; number++)); do
        name=SPARK_JAVA_OPT_$number
        [ -n "${!name+set}" ] || break
        options+=("${!name}")
    done
    for name in SPARK_EXECUTOR_MEMORY SPARK_DRIVER_URL SPARK_EXECUTOR_ID SPARK_EXECUTOR_CORES SPARK_APPLICATION_ID \
        SPARK_EXECUTOR_POD_IP SPARK_RESOURCE_PROFILE_ID SPARK_EXECUTOR_POD_NAME; do
        [ -n "${!name:-}" ] || {
            echo "spark.sh: $name is not set. Spark's driver sets it on Kubernetes; for a standalone cluster: worker URL" >&2
            exit 2
        }
    done
    exec java "${options[@]}" "-Xms$SPARK_EXECUTOR_MEMORY" "-Xmx$SPARK_EXECUTOR_MEMORY" \
        -cp "${SPARK_CLASSPATH:-}:$spark/jars/*:${SPARK_CONF_DIR:-/opt/spark/conf}" \
        org.apache.spark.scheduler.cluster.k8s.KubernetesExecutorBackend \
        --driver-url "$SPARK_DRIVER_URL" --executor-id "$SPARK_EXECUTOR_ID" --cores "$SPARK_EXECUTOR_CORES" \
        --app-id "$SPARK_APPLICATION_ID" --hostname "$SPARK_EXECUTOR_POD_IP" \
        --resourceProfileId "$SPARK_RESOURCE_PROFILE_ID" --podName "$SPARK_EXECUTOR_POD_NAME"
    ;;
worker)
    shift
    exec "$spark/bin/spark-class" org.apache.spark.deploy.worker.Worker --work-dir /tmp/spark-work "$@"
    ;;
"")
    echo "spark.sh: expected a command: executor, worker URL, or luigi --module pipeline TASK" >&2
    exit 2
    ;;
*)
    exec "$@"
    ;;
esac
