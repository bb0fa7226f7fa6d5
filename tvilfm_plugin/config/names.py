"""What a config may name: the contents of fast-reid's registries and of ours."""

from collections.abc import Sequence


def registered(kind: str) -> Sequence[str]:
    """The names, sorted, in a filled registry: of fast-reid ("BACKBONE" ...), ours ("FUSION" ...), or "PROTOCOLS"."""
    from fastreid.data.datasets import DATASET_REGISTRY
    from fastreid.modeling.backbones import BACKBONE_REGISTRY
    from fastreid.modeling.heads import REID_HEADS_REGISTRY
    from fastreid.modeling.meta_arch import META_ARCH_REGISTRY

    from tvilfm_plugin import registries
    from tvilfm_plugin.evaluation.protocols import PROTOCOLS

    if kind == "PROTOCOLS":
        return tuple(PROTOCOLS)
    hosts = {
        "BACKBONE": BACKBONE_REGISTRY,
        "DATASET": DATASET_REGISTRY,
        "META_ARCH": META_ARCH_REGISTRY,
        "REID_HEADS": REID_HEADS_REGISTRY,
    }
    registry = hosts[kind] if kind in hosts else getattr(registries, f"{kind}_REGISTRY")
    names = sorted(registry._obj_map)
    if kind == "SCHEDULE" and names:
        from tvilfm_plugin.keys.host import HOST_SCHEDULES

        names += HOST_SCHEDULES
    return tuple(names)
