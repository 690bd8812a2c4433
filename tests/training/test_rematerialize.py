"""Rematerialisation: the same numbers from less memory."""

import keras
import numpy as np
import pytest

from bert_keras import create_lstm, create_transformer, train_model

SHAPE = {"vocab_size": 53, "embedding_dim": 12, "num_heads": 3, "num_layers": 3, "d_hid": 20, "max_len": 11}


def losses_and_weights(toy, toy_tasks, rematerialize, **choices):
    encoder = create_transformer(**SHAPE, seed=3, **choices)
    model = train_model(
        encoder,
        toy_tasks,
        toy(),
        pretrain_epochs=2,
        pretrain_optimizer=keras.optimizers.SGD(0.1),
        rematerialize=rematerialize,
        verbose=0,
    )
    return model.training_history["pretrain"].history["loss"], model.get_weights()


@pytest.mark.parametrize(
    "choices",
    [
        {"embedding_dropout": 0.2, "attention_dropout": 0.3, "residual_dropout": 0.2},
        {"architecture": "modern", "local_window": 4, "global_every": 2},
    ],
    ids=["bert with dropout", "modern, local"],
)
def test_training_is_the_same(toy, toy_tasks, choices):
    kept = losses_and_weights(toy, toy_tasks, False, **choices)
    recomputed = losses_and_weights(toy, toy_tasks, True, **choices)
    np.testing.assert_allclose(recomputed[0], kept[0], rtol=1e-5)
    for here, there in zip(recomputed[1], kept[1], strict=True):
        np.testing.assert_allclose(here, there, rtol=1e-4, atol=1e-6)


def held_for_the_backward_pass(encoder, arrays):
    """Bytes that are kept (JAX, torch), or minus the number of matrix products in the graph (TensorFlow)."""
    backend = keras.backend.backend()
    if backend == "torch":
        import torch

        sizes = {}

        def pack(tensor):
            sizes[tensor.data_ptr()] = tensor.nbytes
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            encoder(arrays, training=True)
        return sum(sizes.values())
    if backend == "jax":
        import jax

        others = [v.value for v in encoder.non_trainable_variables]

        def hidden(trainable):
            return encoder.stateless_call(trainable, others, arrays, training=True)[0]

        _, backward = jax.vjp(hidden, [v.value for v in encoder.trainable_variables])
        return sum(array.nbytes for array in jax.tree_util.tree_leaves(backward))
    import tensorflow as tf

    @tf.function
    def gradients():
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(encoder(arrays, training=True) ** 2)
        return tape.gradient(loss, [v.value for v in encoder.trainable_variables])

    operations = gradients.get_concrete_function().graph.get_operations()
    return -sum("MatMul" in operation.type for operation in operations)


def test_less_is_held():
    encoder = create_transformer(**{**SHAPE, "max_len": 64, "num_layers": 5}, seed=3)
    ids = np.ones((17, 64), "int32")
    arrays = {"token_ids": ids, "segment_ids": 0 * ids, "position_ids": 0 * ids, "sequence_ids": ids}
    all_of_it = held_for_the_backward_pass(encoder, arrays)
    encoder.rematerialize = True
    less = held_for_the_backward_pass(encoder, arrays)
    assert less < (0.5 * all_of_it if all_of_it > 0 else 1.2 * all_of_it)


def test_other_encoders_are_refused(toy, toy_tasks):
    with pytest.raises(ValueError, match=r"is for transformers.*LSTM.*keras\.remat"):
        train_model(create_lstm(53, 12), toy_tasks, toy(), rematerialize=True, verbose=0)
