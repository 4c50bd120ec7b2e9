"""Replicas of a network on several devices or machines, and gradients whose bits do not depend on their number.

Each step is cut into shards, and each replica computes the gradients of its share of them. The gradients of all shards
are then gathered by every replica and added in the order of the shards. So the sum depends on the number of shards, but
not on how many replicas computed them. All-reduce operations add in an order that depends on the number of replicas.

With one shard, nothing is gathered: the gradients are those of the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from models.errors import SettingsError

Gradient: TypeAlias = Any  # a tf.Tensor, or tf.IndexedSlices


class Replicas:
    """The replicas of a network: where its variables are, and how a step is divided.

    Attributes:
        strategy: the strategy of `tf.distribute`; variables are created in its scope.
        workers: number of workers.
        shards: number of shards that each step is cut into.
        local_shards: number of shards that this process computes.
        first_local_shard: the number of the first of them.
    """

    def __init__(self, strategy: tf.distribute.Strategy, shards: int = 0, worker: int = 0, workers: int = 1) -> None:
        """Divides the shards among the replicas.

        Args:
            strategy: a strategy for one device, for several devices, or for several workers.
            shards: number of shards; 0 is one for each replica.
            worker: number of this process among the workers, from 0.
            workers: number of workers.

        Raises:
            SettingsError: the shards cannot be divided among the replicas.
        """
        self.strategy, self.workers = strategy, workers
        replicas = strategy.num_replicas_in_sync
        self.shards = shards or replicas
        if self.shards % replicas:
            places = f"{workers} workers" if workers > 1 else f"{replicas} devices"
            raise SettingsError(
                f"[training] shards = {shards}: expected a multiple of {replicas}, because the training runs on "
                f"{places}. Set shards to {-(-shards // replicas) * replicas}, or to 0 for one shard on each."
            )
        self._shards_of_replica = self.shards // replicas
        self.local_shards = self.shards // workers
        self.first_local_shard = worker * self.local_shards
        self._run_gather = tf.function(
            lambda words: strategy.run(_gather, args=(words,)),
            input_signature=[tf.TensorSpec([1, None], tf.int32)],
            autograph=False,
        )

    @property
    def device(self) -> str:
        """The device on which this process evaluates the network."""
        return str(self.strategy.extended.worker_devices[0])

    def compute(
        self, compute_shard: Callable[[int, int], tuple[list[tf.Tensor], list[Gradient]]]
    ) -> tuple[list[tf.Tensor], list[Gradient]]:
        """Runs a function for every shard, and adds the results in the order of the shards. Call it in a `tf.function`.

        Args:
            compute_shard: gets the number of a shard, and its index among the shards of this process. Returns scalars
                and gradients.

        Returns:
            The sums of the scalars and of the gradients. With several shards, a sparse gradient becomes a dense one:
            Keras's Adam squares the slices of one row separately, so a row of several shards would have other steps.
        """
        results = self.strategy.run(self._compute_replica, args=(compute_shard,))
        # All replicas have the same values.
        scalars, gradients = ([self.strategy.experimental_local_results(v)[0] for v in values] for values in results)
        return scalars, gradients

    def _compute_replica(
        self, compute_shard: Callable[[int, int], tuple[list[tf.Tensor], list[Gradient]]]
    ) -> tuple[list[tf.Tensor], list[Gradient]]:
        """Computes the shards of one replica, gathers those of the others, and adds them on the replica's device."""
        if self.shards == 1:
            return compute_shard(0, 0)
        replica = int(tf.get_static_value(tf.distribute.get_replica_context().replica_id_in_sync_group))
        first = replica * self._shards_of_replica
        results = [
            compute_shard(number, number - self.first_local_shard)
            for number in range(first, first + self._shards_of_replica)
        ]
        scalars, gradients = (
            [_add(_gather(_concatenate(v)), self.shards) for v in zip(*values, strict=True)]
            for values in zip(*results, strict=True)
        )
        return scalars, gradients

    def gather(self, values: Sequence[float]) -> npt.NDArray[np.float64]:
        """Returns the values of every worker, float64 [workers, values]. All workers must call it."""
        return np.asarray(self._gather_rows(np.asarray(values, np.float64)))

    def copy_from_chief(self, variables: Sequence[tf.Variable]) -> None:
        """Sets variables to their values in the first worker. All workers must call it."""
        if self.workers > 1:
            for variable in variables:
                value = variable.numpy()
                is_bool = value.dtype == np.bool_
                variable.assign(self._gather_rows(value.astype(np.int32) if is_bool else value)[0].astype(value.dtype))

    def _gather_rows(self, value: npt.NDArray[Any]) -> Any:
        """Returns an array of every worker, stacked. Its elements must have 4 or 8 bytes."""
        if self.workers == 1:
            return value[np.newaxis]
        words = np.ascontiguousarray(value).reshape(-1).view(np.int32)
        rows = self.strategy.experimental_local_results(self._run_gather(words[np.newaxis]))[0].numpy()
        # A worker has a row for each of its devices; they are equal.
        return rows[:: len(rows) // self.workers].view(value.dtype).reshape(self.workers, *value.shape)


def create_strategy(devices: Sequence[str]) -> tf.distribute.Strategy:
    """Creates the strategy for one or several devices of this process.

    Args:
        devices: names of logical devices, as `models.network.devices.select_devices` returns them.
    """
    if len(devices) == 1:
        return tf.distribute.OneDeviceStrategy(devices[0])
    # Reduces in the order of the devices; NCCL, the default on GPUs, does not promise an order.
    return tf.distribute.MirroredStrategy(list(devices), tf.distribute.ReductionToOneDevice())


def create_cluster_strategy(addresses: Sequence[str], worker: int) -> tf.distribute.Strategy:
    """Creates the strategy for several machines, on all GPUs of each or on its first CPU. Waits for all of them.

    TensorFlow allows this only before the logical devices are listed, and waits for ever for a worker that is missing.

    Args:
        addresses: host and port of the TensorFlow server of each worker.
        worker: number of this worker, from 0.
    """
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({"worker": list(addresses)}), task_type="worker", task_id=worker, rpc_layer="grpc"
    )
    return tf.distribute.MultiWorkerMirroredStrategy(resolver)


def _concatenate(gradients: Sequence[Gradient]) -> Gradient:
    """Joins gradients of several shards: dense ones along a new first axis, sparse ones as slices in this order."""
    if not isinstance(gradients[0], tf.IndexedSlices):
        return tf.stack(gradients)
    return tf.IndexedSlices(
        tf.concat([gradient.values for gradient in gradients], axis=0),
        tf.concat([gradient.indices for gradient in gradients], axis=0),
        gradients[0].dense_shape,
    )


def _gather(gradient: Gradient) -> Gradient:
    """Joins the gradients of all replicas along the first axis."""

    def gather(value: tf.Tensor, axis: int) -> tf.Tensor:
        # The collective operation goes to the device of the value; an argument of a `tf.function` has none.
        return tf.distribute.get_replica_context().all_gather(tf.identity(value), axis)

    if not isinstance(gradient, tf.IndexedSlices):
        return gather(gradient, axis=0)
    return tf.IndexedSlices(gather(gradient.values, axis=0), gather(gradient.indices, axis=0), gradient.dense_shape)


def _add(values: Gradient, shards: int) -> tf.Tensor:
    """Adds values [shards, ...], or the slices of each row, in their order. That of `tf.reduce_sum` is not defined."""
    if isinstance(values, tf.IndexedSlices):
        return tf.convert_to_tensor(values)
    total, *rest = tf.unstack(values, shards)
    for value in rest:
        total += value
    return total
