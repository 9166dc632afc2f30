"""RF-DETR (arXiv:2511.09554): backbone -> levels -> two-stage selection -> decoder -> heads."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from rfdetr.boxes import apply_deltas
from rfdetr.config.model import ModelConfig
from rfdetr.models.backbone import Backbone
from rfdetr.models.initialization import initialize
from rfdetr.models.memory import Memory
from rfdetr.models.mlp import MLP
from rfdetr.models.segmentation_head import SegmentationHead
from rfdetr.models.transformer import Transformer
from rfdetr.types import LayerOutputs, RawOutputs


class Detector(nn.Module):
    """The network. In training mode it predicts with all query groups, otherwise with the first.

    Args:
        config: the architecture.
        seed: of the initial values; they do not touch torch's global random state.
    """

    def __init__(self, config: ModelConfig, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        rows = config.group_detr * config.num_queries
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would change the state of GPUs, too
            self.transformer = Transformer(config)
            self.class_embed = nn.Linear(config.hidden_dim, config.num_classes + 1)
            self.bbox_embed = MLP(config.hidden_dim, config.hidden_dim, config.hidden_dim, 4)
            self.refpoint_embed = nn.Embedding(rows, 4)
            self.query_feat = nn.Embedding(rows, config.hidden_dim)
            self.backbone = Backbone(config)
            initialize(self)
            # Last, and with torch's own initial values: with and without it, all else begins the same.
            self.segmentation_head = (
                SegmentationHead(config.hidden_dim, config.dec_layers) if config.segmentation_head else None
            )
        self._freeze_unused()

    def _freeze_unused(self) -> None:
        """No loss depends on these, so they get no gradient (which distributed training would wait for)."""
        vit = self.backbone.vit
        vit.embeddings.mask_token.requires_grad_(False)
        vit.blocks[max(vit.feature_stages) :].requires_grad_(False)
        self.transformer.decoder.ref_point_head.requires_grad_(False)

    def forward(
        self,
        images: Float[Tensor, "B N height width"],
        padding_mask: Bool[Tensor, "B height width"] | None = None,
        last_only: bool = False,
    ) -> RawOutputs:
        """Predictions for normalised images whose height and width are multiples of `config.block_size`.

        `padding_mask` is True on padding (bottom and right). Q is min(num_queries, tokens), times the groups in
        training mode; queries of a group are consecutive. `last_only` leaves out what none but losses read: the earlier
        decoder layers and the encoder.

        Raises:
            ValueError: an image size that the windows do not divide, or a mask of another size.
        """
        height, width = images.shape[-2:]
        if height % self.config.block_size or width % self.config.block_size:
            raise ValueError(f"image size {height}x{width} is not a multiple of {self.config.block_size} in both axes")
        if padding_mask is not None and padding_mask.shape != (len(images), height, width):
            raise ValueError(f"padding_mask is of shape {tuple(padding_mask.shape)}, the images need one per pixel")
        levels = self.backbone(images)
        memory = Memory.from_levels(levels, padding_mask)
        groups = self.config.group_detr if self.training else 1
        hs, reference, enc_outputs, tokens = self.transformer(
            memory, self.query_feat.weight, self.refpoint_embed.weight, groups
        )
        if last_only:
            return self._last(levels[0], hs[-1], reference, (height, width))
        layers = [self._predict(states, reference) for states in hs]
        if self.segmentation_head is not None:
            masks, enc_outputs["pred_masks"] = self.segmentation_head(levels[0], hs, tokens, (height, width))
            for layer, layer_masks in zip(layers, masks, strict=True):
                layer["pred_masks"] = layer_masks
        *aux_outputs, last = layers
        return {**last, "aux_outputs": aux_outputs, "enc_outputs": enc_outputs}

    def _last(
        self,
        level: Float[Tensor, "B D _ _"],
        states: Float[Tensor, "B Q D"],
        reference: Float[Tensor, "B Q 4"],
        image_hw: tuple[int, int],
    ) -> RawOutputs:
        last = self._predict(states, reference)
        outputs: RawOutputs = {"pred_logits": last["pred_logits"], "pred_boxes": last["pred_boxes"]}
        if self.segmentation_head is not None:
            outputs["pred_masks"] = self.segmentation_head.last(level, states, image_hw)
        return outputs

    def _predict(self, states: Float[Tensor, "B Q D"], reference: Float[Tensor, "B Q 4"]) -> LayerOutputs:
        return {
            "pred_logits": self.class_embed(states),
            "pred_boxes": apply_deltas(self.bbox_embed(states).float(), reference),
        }
