"""Our numbers against the released programs' own: every size is read from the reference files.

Tolerances are those of float32 sums taken in another order: 1e-5 of a tensor's largest value (1e-4
for gradient norms), 1e-4 absolute for filterbanks; masks are compared as distributions.
"""

import re

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp
from torch import Tensor

from asit_core.encoder import EncoderConfig
from asit_core.heads import ProjectionHeadConfig
from asit_core.interop import Network, from_asit
from asit_core.masking import MaskingConfig, gmml_masks
from asit_core.optim import OptimizerConfig
from asit_core.pretext.clip_distillation import ClipDistillationConfig
from asit_core.pretext.patch_distillation import PatchDistillationConfig
from asit_core.pretext.reconstruction import ReconstructionConfig
from asit_core.pretrainer import PretextConfig, PretrainConfig, Pretrainer, PretrainInputs
from asit_core.schedules import cosine, linear_ramp
from asit_core.seeding import clip_keys, uniform
from asit_core.spectrogram import LogMel, LogMelConfig
from asit_core.teacher import TeacherConfig
from asit_core.views import ViewsConfig

_FBANK_KEY = re.compile(r"fbank_(?P<kilohertz>\d+)k(?:_of_first_(?P<samples>\d+))?")


def test_fbank_equals_the_reference(golden):
    tensors, _ = golden("fbank")
    # The reference removes the mean of the whole waveform once, before it cuts.
    waveform = tensors["waveform"] - tensors["waveform"].mean()
    keys = [key for key in tensors if key.startswith("fbank_")]
    assert keys
    for key in keys:
        match = _FBANK_KEY.fullmatch(key)
        assert match, f"unknown entry {key}"
        config = LogMelConfig(
            sample_rate_hz=1000 * int(match["kilohertz"]),
            num_mel_bins=tensors[key].shape[-1],
            subtract_mean=False,
        )
        samples = int(match["samples"] or waveform.shape[1])
        log_mel = LogMel(config)(waveform[:, :samples])[0]
        # 1e-4 absolute: float32 in the emptiest bins, just above the floor
        torch.testing.assert_close(log_mel, tensors[key], rtol=0, atol=1e-4)


def test_fbank_subtracts_the_mean_itself(golden):
    tensors, _ = golden("fbank")
    for key, reference in tensors.items():
        match = _FBANK_KEY.fullmatch(key)
        if match and match["samples"] is None:
            config = LogMelConfig(
                sample_rate_hz=1000 * int(match["kilohertz"]), num_mel_bins=reference.shape[-1]
            )
            log_mel = LogMel(config)(tensors["waveform"])[0]
            torch.testing.assert_close(log_mel, reference, rtol=0, atol=1e-4)
            return
    pytest.skip("the reference holds no filterbank of the whole waveform")


def _imported(tensors: dict[str, Tensor], meta: dict, network: Network) -> dict[str, str]:
    """The program's names of a network's tensors, and ours: its importer keeps the tensors."""
    weights = from_asit(
        _content(tensors), network=network, num_heads=meta["num_heads"], input_bins=meta["mels"]
    )
    assert weights.encoder.norm_eps == meta["layernorm_eps"]
    assert weights.input_frames == meta["frames"]
    ours = {id(tensor): name for name, tensor in weights.tensors.items()}
    state = {k.removeprefix(f"{network}."): v for k, v in tensors.items() if k.startswith(network)}
    return {
        name: _pretrainers_name(ours[id(tensor)], network)
        for name, tensor in state.items()
        if id(tensor) in ours
    }


def _pretrainers_name(name: str, network: Network) -> str:
    name = name.removeprefix("pretext.")
    of_network = ("encoder.", "projection.", "clip_prototypes.", "patch_prototypes.")
    return f"{network}.{name}" if name.startswith(of_network) else name


def _content(tensors: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """What the program's file would hold of this step."""
    networks = {
        network: {
            name.removeprefix(f"{network}."): tensor
            for name, tensor in tensors.items()
            if name.startswith(f"{network}.")
        }
        for network in ("student", "teacher")
    }
    centers = {
        f"loss_{name}": {"center": tensors[f"center_{name}_before"]} for name in ("cls", "data")
    }
    return {**networks, **centers}


def _close(ours: Tensor, theirs: Tensor, relative: float = 1e-5) -> None:
    torch.testing.assert_close(
        ours.reshape(theirs.shape).float(),
        theirs,
        rtol=0.0,
        atol=relative * theirs.abs().max().item(),
    )


def _teacher_before_ema(tensors: dict[str, Tensor], meta: dict) -> dict[str, Tensor]:
    """The teacher the outputs were computed with.

    A file may have been written after the teacher was updated in place: then its `teacher.*` equal
    its `teacher_after_ema.*`, and the update is undone with the student's weights.
    """
    teacher = {k: v for k, v in tensors.items() if k.startswith("teacher.")}
    after = {k: v for k, v in tensors.items() if k.startswith("teacher_after_ema.")}
    if not all(
        torch.equal(v, teacher[k.replace("teacher_after_ema.", "teacher.")])
        for k, v in after.items()
    ):
        return teacher
    momentum = meta["ema_momentum"]
    return {
        k: v
        if k.endswith("weight_g")
        else (v - (1 - momentum) * tensors[k.replace("teacher.", "student.")]) / momentum
        for k, v in teacher.items()
    }


def _pretrainer(tensors: dict[str, Tensor], meta: dict) -> Pretrainer:
    config = PretrainConfig(
        encoder=EncoderConfig(
            embed_dim=meta["embed_dim"],
            depth=meta["depth"],
            num_heads=meta["num_heads"],
            patch_frames=meta["patch"],
            patch_bins=meta["patch"],
            input_bins=meta["mels"],
        ),
        views=ViewsConfig(crop_frames=meta["frames"]),
        masking=MaskingConfig(),
        pretext=PretextConfig(
            reconstruction=ReconstructionConfig(
                weight=2.0,
                hidden_dim=meta["rec_hidden"],
                bottleneck_dim=meta["rec_bottleneck"],
            ),
            patch_distillation=PatchDistillationConfig(num_prototypes=meta["out_dim_data"]),
            clip_distillation=ClipDistillationConfig(num_prototypes=meta["out_dim_cls"]),
        ),
        projection_head=ProjectionHeadConfig(
            hidden_dim=meta["head_hidden"], bottleneck_dim=meta["head_bottleneck"]
        ),
        teacher=TeacherConfig(center_momentum=meta["center_momentum"]),
        optimizer=OptimizerConfig(),
        student_temperature=meta["student_temp"],
    )
    pretrainer = Pretrainer(config, seed=0)
    before = {**tensors, **_teacher_before_ema(tensors, meta)}
    state = {}
    for network in ("teacher", "student"):  # the decoder is the student's, which comes last
        weights = from_asit(
            _content(before), network=network, num_heads=meta["num_heads"], input_bins=meta["mels"]
        )
        for name, tensor in weights.tensors.items():
            state[_pretrainers_name(name, network)] = tensor
    pretrainer.load_state_dict(state)  # strict: every parameter has an official counterpart
    return pretrainer


def test_one_step_equals_the_released_program(golden):
    tensors, meta = golden("asit_step")
    pretrainer = _pretrainer(tensors, meta)
    clean = torch.stack([tensors["clean0"], tensors["clean1"]]).squeeze(2)
    mask = torch.stack([tensors["mask0"], tensors["mask1"]]).squeeze(2).bool()
    corrupted = clean.masked_fill(mask, 0.0)
    temperature = linear_ramp(
        meta["epoch"],
        start=meta["warmup_teacher_temp"],
        end=meta["teacher_temp"],
        ramp_steps=meta["warmup_teacher_temp_epochs"],
    )

    tokens, student = pretrainer.student(corrupted)
    inputs = PretrainInputs(clean, corrupted, mask)
    report = pretrainer(inputs, teacher_temperature=temperature)
    assert pretrainer.teacher is not None
    assert pretrainer.reconstruction is not None
    teacher_tokens, teacher = pretrainer.teacher(clean)
    _close(tokens, tensors["student_tokens"])
    _close(teacher_tokens, tensors["teacher_tokens"])
    _close(student["clip_distillation"], tensors["student_cls"])
    _close(student["patch_distillation"], tensors["student_data"])
    _close(teacher["clip_distillation"], tensors["teacher_cls"])
    _close(teacher["patch_distillation"], tensors["teacher_data"])
    _close(
        pretrainer.reconstruction.reconstruct(tokens[:, :, 1:].flatten(0, 1)),
        tensors["student_recons"],
    )
    _close(report.losses["clip_distillation"], tensors["loss_cls"])
    _close(report.losses["patch_distillation"], tensors["loss_data"])
    _close(report.losses["reconstruction"], tensors["loss_rec"])
    _close(report.total, tensors["loss_total"])

    report.total.backward()
    parameters = dict(pretrainer.named_parameters())
    of_student, of_teacher = (_imported(tensors, meta, kind) for kind in ("student", "teacher"))
    for name in [key for key in tensors if key.startswith("gradnorm.")]:
        ours = parameters[of_student[name.removeprefix("gradnorm.")]].grad
        assert ours is not None
        _close(ours.norm(), tensors[name], relative=1e-4)

    # The official program moves the centres in the forward pass and the teacher after the step;
    # the file's teacher was moved towards the unchanged student.
    pretrainer.after_step(report.teacher_logits, momentum=meta["ema_momentum"])
    assert pretrainer.clip_distillation is not None
    assert pretrainer.patch_distillation is not None
    _close(pretrainer.clip_distillation.center.value_K, tensors["center_cls_after"])
    _close(pretrainer.patch_distillation.center.value_K, tensors["center_data_after"])
    for name in [key for key in tensors if key.startswith("teacher_after_ema.")]:
        ours = parameters[of_teacher[name.removeprefix("teacher_after_ema.")]]
        _close(ours, tensors[name])


def test_schedules_equal_the_released_program(golden):
    tensors, meta = golden("asit_schedules")
    steps_per_epoch = meta["steps_per_epoch"]
    for name in ("lr", "wd", "ema"):
        warmup_epochs = meta[name].get("warmup_epochs", 0)
        ours = [
            cosine(
                step,
                base=meta[name]["base"],
                final=meta[name]["final"],
                total_steps=meta["epochs"] * steps_per_epoch,
                warmup_steps=warmup_epochs * steps_per_epoch,
            )
            for step in range(meta["epochs"] * steps_per_epoch)
        ]
        theirs = tensors[name].double().numpy()
        # The program computes in float64; a file that stores float32 can only be met to its
        # rounding.
        rounding = 0.0 if tensors[name].dtype == torch.float64 else 2.0**-24
        np.testing.assert_allclose(ours, theirs, rtol=rounding, atol=1e-12)


def _mask_statistics(masks: Tensor) -> dict[str, Tensor]:
    """Per mask: share hidden, edges along time per mel row, tokens touched, tokens fully hidden."""
    hidden = masks.unflatten(2, (-1, 16)).unflatten(1, (-1, 16)).sum((2, 4)).flatten(1)
    return {
        "fraction": hidden.sum(1) / masks[0].numel(),
        "edges": (masks[:, 1:] != masks[:, :-1]).sum((1, 2)) / masks.shape[2],
        "touched": (hidden > 0).float().mean(1),
        "full": (hidden == 16 * 16).float().mean(1),
    }


@pytest.mark.parametrize(
    "name",
    [f"gmml_align{align}_drop{drop}" for align in (1, 16) for drop in (30, 70)],
)
def test_masks_follow_the_released_law(golden, name):
    tensors, meta = golden(name)
    config = MaskingConfig(
        ratio=meta["drop_perc"], align=meta["align"], block_max=meta["max_block"]
    )
    keys = clip_keys(0, "mask", 0, [f"clip-{i}" for i in range(2000)])
    lowest = min(config.min_ratio, config.ratio)
    target = lowest + uniform(keys, 2)[:, 1] * (config.ratio - lowest)
    parts = [
        _mask_statistics(
            gmml_masks(keys_B, target_B, frames=meta["frames"], bins=meta["mels"], config=config)
        )
        for keys_B, target_B in zip(keys.split(25), target.split(25), strict=True)
    ]
    touched_and_full = tensors["tokens_touched_and_fully_masked"]
    references = {
        "fraction": tensors["fraction"],
        "edges": tensors["edges_per_mel"],
        "touched": touched_and_full[:, 0],
        "full": touched_and_full[:, 1],
    }
    for statistic, theirs in references.items():
        ours = torch.cat([part[statistic] for part in parts])
        test = ks_2samp(ours.numpy(), theirs.numpy())
        assert test.pvalue > 1e-4, statistic  # pyright: ignore[reportAttributeAccessIssue]
