"""The same networks written in PyTorch, with the same parameters, give the same logits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tna_jax import models

torch = pytest.importorskip("torch")
nn, F = torch.nn, torch.nn.functional


class ChannelNorm(nn.LayerNorm):
    def forward(self, x):
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


def make_norm(kind, channels):
    return {
        "none": nn.Identity,
        "batch": lambda: nn.BatchNorm2d(channels, eps=1e-5, momentum=0.1),
        "layer": lambda: ChannelNorm(channels, eps=1e-5),
        "group": lambda: nn.GroupNorm(8, channels, eps=1e-5),
    }[kind]()


class TorchCNN(nn.Module):
    def __init__(self, norm):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(3, 32, 3), make_norm(norm, 32)
        self.conv2, self.norm2 = nn.Conv2d(32, 64, 3), make_norm(norm, 64)
        self.conv3, self.norm3 = nn.Conv2d(64, 64, 3), make_norm(norm, 64)
        self.dense, self.head = nn.Linear(1024, 64), nn.Linear(64, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.norm1(self.conv1(x))), 2)
        x = F.max_pool2d(F.relu(self.norm2(self.conv2(x))), 2)
        x = F.relu(self.norm3(self.conv3(x)))
        return self.head(F.relu(self.dense(x.permute(0, 2, 3, 1).flatten(1))))  # Flax flattens with channels last


class TorchVGG11(nn.Module):
    def __init__(self, norm):
        super().__init__()
        self.steps = []
        before = 3
        stages = {1: [64], 2: [128], 3: [256, 256], 4: [512, 512], 5: [512, 512]}
        for stage, widths in stages.items():
            for i, width in enumerate(widths, start=1):
                conv, after = nn.Conv2d(before, width, 3, padding=1), make_norm(norm, width)
                self.add_module(f"stage{stage}_conv{i}", conv)
                self.add_module(f"stage{stage}_norm{i}", after)
                self.steps += [conv, after, nn.ReLU()]
                before = width
            self.steps.append(nn.MaxPool2d(2))
        self.head = nn.Linear(512, 10)

    def forward(self, x):
        for step in self.steps:
            x = step(x)
        return self.head(x.flatten(1))


class TorchBlock(nn.Module):
    def __init__(self, before, after, stride, norm, option):
        super().__init__()
        self.stride, self.more = stride, after - before
        self.conv1 = nn.Conv2d(before, after, 3, stride, padding=0 if stride == 2 else 1, bias=False)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.norm1, self.norm2 = make_norm(norm, after), make_norm(norm, after)
        if self.more and option == "B":
            self.shortcut, self.shortcut_norm = nn.Conv2d(before, after, 1, stride, bias=False), make_norm(norm, after)

    def forward(self, x):
        padded = F.pad(x, (0, 1, 0, 1)) if self.stride == 2 else x  # SAME on even sides: zeros at the end only
        y = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(padded)))))
        if hasattr(self, "shortcut"):
            x = self.shortcut_norm(self.shortcut(x))
        elif self.more:
            x = F.pad(F.avg_pool2d(x, 1, 2), (0, 0, 0, 0, 0, self.more))
        return F.relu(x + y)


class TorchResNet20(nn.Module):
    def __init__(self, norm, option="B"):
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(3, 16, 3, padding=1, bias=False), make_norm(norm, 16)
        self.blocks = []
        for stage, before, after in ((1, 16, 16), (2, 16, 32), (3, 32, 64)):
            for i in range(3):
                start = i == 0 and stage > 1
                block = TorchBlock(before if i == 0 else after, after, 2 if start else 1, norm, option)
                self.add_module(f"stage{stage}_block{i}", block)
                self.blocks.append(block)
        self.head = nn.Linear(64, 10)

    def forward(self, x):
        x = F.relu(self.stem_norm(self.stem(x)))
        for block in self.blocks:
            x = block(x)
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))


LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}


def copy_into(twin, variables):
    """Loads every Flax leaf into the twin; both must have exactly the same ones."""
    state = {}
    for collection in variables.values():
        for path, leaf in jax.tree.leaves_with_path(collection):
            *place, leaf_name = (part.key for part in path)
            axes = {"kernel": {4: (3, 2, 0, 1), 2: (1, 0)}}.get(leaf_name, {}).get(leaf.ndim, range(leaf.ndim))
            state[".".join([*place, LEAVES[leaf_name]])] = torch.from_numpy(np.array(leaf.transpose(*axes)))
    assert set(state) == {name for name in twin.state_dict() if not name.endswith("num_batches_tracked")}
    twin.load_state_dict(state, strict=False)


def random_variables(model, x):
    """Values for every leaf that keep the signal's size; none is 0 or 1 throughout, where a wrong place would not show."""
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        noise = rng.normal(size=leaf.shape).astype(np.float32)
        around = {"kernel": 0, "bias": 0, "scale": 1, "mean": 0, "var": 1}[path[-1].key]
        spread = np.prod(leaf.shape[:-1]) ** -0.5 if path[-1].key == "kernel" else 0.2
        return np.float32(around) + np.float32(spread) * (np.abs(noise) if around else noise)

    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), x))
    return jax.tree.map(jnp.asarray, jax.tree.map_with_path(draw, shapes))


TWINS = {
    "cnn": TorchCNN,
    "vgg11": TorchVGG11,
    "resnet20": TorchResNet20,
    "resnet20_option_a": lambda norm: TorchResNet20(norm, "A"),
}
CASES = [
    ("cnn", "none"), ("cnn", "group"), ("vgg11", "none"), ("vgg11", "batch"), ("resnet20", "none"), ("resnet20", "batch"),
    ("resnet20", "layer"), ("resnet20_option_a", "batch"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "norm"), CASES)
def test_logits_are_those_of_the_torch_twin(name, norm):
    """In evaluation; with batch norm also in training, with the running statistics after it."""
    x = np.random.default_rng(1).normal(size=(3, 32, 32, 3)).astype(np.float32)
    model = models.create(name, num_classes=10, norm=norm)
    variables = random_variables(model, x)
    twin = TWINS[name](norm)
    copy_into(twin, variables)
    images = torch.from_numpy(x).permute(0, 3, 1, 2)

    with torch.no_grad():
        close(jax.jit(model.apply)(variables, x), twin.eval()(images))
        if norm != "batch":
            return
        batches = positions_normalised(twin)
        expected = twin.train()(images)
    logits, updated = jax.jit(lambda v: model.apply(v, x, train=True, mutable=["batch_stats"]))(variables)
    close(logits, expected)
    found = {".".join(p.key for p in path): leaf for path, leaf in jax.tree.leaves_with_path(updated["batch_stats"])}
    old = {".".join(p.key for p in path): leaf for path, leaf in jax.tree.leaves_with_path(variables["batch_stats"])}
    for place, n in batches.items():
        layer = twin.get_submodule(place)
        close(found[f"{place}.mean"], layer.running_mean)
        before = 0.9 * np.asarray(old[f"{place}.var"])
        biased = before + (layer.running_var.numpy() - before) * (n - 1) / n  # PyTorch averages the unbiased variance
        close(found[f"{place}.var"], torch.from_numpy(biased))
    assert len(batches) == len(found) / 2


def positions_normalised(twin):
    """Examples times positions that each BatchNorm of the twin sees, by name; filled in by the next forward pass."""
    seen = {}
    for place, layer in twin.named_modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.register_forward_hook(
                lambda layer, args, out, place=place: seen.update({place: out.numel() // out.shape[1]})
            )
    return seen


def close(found, expected):
    expected = expected.numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * max(1, np.abs(expected).max()))
    assert np.abs(expected).max() > 1e-2
