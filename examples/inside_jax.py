"""A small convolutional network in JAX, trained on handwritten digits: every step is one compiled function.

    python examples/inside_jax.py [--steps 60]

Convolutions are JAX's, batch norm and the ReLU behind it cpubn's. The running statistics go into a step and come out of
it, as all state does in JAX.
"""

import argparse
import sys
from itertools import pairwise

try:
    import jax
    import jax.numpy as jnp
    from sklearn.datasets import load_digits

    from cpubn.jax import batch_norm
except ImportError as error:
    sys.exit(f"this example needs JAX and scikit-learn ({error}); install with: pip install 'cpubn[jax]' scikit-learn")

WIDTHS = 1, 16, 32
CLASSES = 10


def new_network(key):
    """Parameters of two convolutions with their norms and of a linear layer, and running statistics."""
    parameters, statistics = [], []
    for inputs, outputs in pairwise(WIDTHS):
        key, here = jax.random.split(key)
        kernel = jax.random.normal(here, (outputs, inputs, 3, 3)) * (2 / (9 * inputs)) ** 0.5
        parameters.append((kernel, jnp.ones(outputs), jnp.zeros(outputs)))
        statistics.append((jnp.zeros(outputs), jnp.ones(outputs)))
    parameters.append(jax.random.normal(key, (WIDTHS[-1], CLASSES)) * WIDTHS[-1] ** -0.5)
    return parameters, statistics


def scores(parameters, statistics, images, training):
    """(N, CLASSES), and the running statistics, which training moves."""
    x, moved = images, []
    for (kernel, weight, bias), running in zip(parameters[:-1], statistics, strict=True):
        x = jax.lax.conv_general_dilated(x, kernel, (2, 2), "SAME")
        if training:
            x, *running = batch_norm(x, *running, weight, bias, training=True, activation="relu")
        else:
            x = batch_norm(x, *running, weight, bias, activation="relu")
        moved.append(tuple(running))
    return x.mean((2, 3)) @ parameters[-1], moved


def loss(parameters, statistics, images, labels):
    found, moved = scores(parameters, statistics, images, True)
    return -jax.nn.log_softmax(found)[jnp.arange(len(labels)), labels].mean(), moved


@jax.jit
def step(parameters, statistics, images, labels):
    (value, statistics), gradients = jax.value_and_grad(loss, has_aux=True)(parameters, statistics, images, labels)
    return jax.tree.map(lambda p, g: p - 0.3 * g, parameters, gradients), statistics, value


@jax.jit
def predict(parameters, statistics, images):
    return scores(parameters, statistics, images, False)[0].argmax(1)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=60)
    steps = parser.parse_args().steps
    digits = load_digits()
    images, labels = jnp.asarray(digits.images[:, None], jnp.float32), jnp.asarray(digits.target)
    held_out = 360
    parameters, statistics = new_network(jax.random.key(0))
    key = jax.random.key(1)
    for k in range(steps):
        key, here = jax.random.split(key)
        chosen = jax.random.randint(here, (128,), held_out, len(images))
        parameters, statistics, value = step(parameters, statistics, images[chosen], labels[chosen])
        if k % 20 == 0 or k == steps - 1:
            print(f"step {k + 1:3d}: loss {value:.3f}")
    right = predict(parameters, statistics, images[:held_out]) == labels[:held_out]
    print(f"{100 * right.mean():.1f}% of {held_out} digits that it was not trained on are recognized")


if __name__ == "__main__":
    main()
