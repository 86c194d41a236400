"""What a stage attempt looks like on a cluster: one RayCluster. Pure: a plan and settings in, plain dictionaries out."""

from prism_operator.cluster.raycluster import make_ray_cluster

__all__ = ["make_ray_cluster"]
