"""Which events about RayClusters a run is looked at for."""

from prism_operator.kube.inventory import Inventory, RunKey

KEY = RunKey("team", "demo")
READY = {"conditions": [{"type": "RayClusterProvisioned", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}


def ray_cluster(version, **status):
    labels = {"prism.dev/run": "demo", "prism.dev/stage": "sft", "prism.dev/attempt": "1"}
    metadata = {"namespace": "team", "name": "demo-sft-a1", "uid": "c1", "resourceVersion": str(version), "labels": labels}
    return {"metadata": metadata, "spec": {}, "status": status}


def test_a_status_that_changes_no_fact_is_no_news():
    inventory = Inventory()
    assert inventory.put_cluster(ray_cluster(1)) == KEY
    assert inventory.put_cluster(ray_cluster(2, desiredCPU="1")) is None
    assert inventory.put_cluster(ray_cluster(3, **READY)) == KEY


def test_what_an_answer_told_before_the_watch_did_is_news_when_the_watch_tells_it():
    inventory = Inventory()
    inventory.put_cluster(ray_cluster(1))
    inventory.replace_children(KEY, frozenset(), [ray_cluster(2, **READY)], [])
    assert inventory.put_cluster(ray_cluster(2, **READY)) == KEY


def test_an_older_event_neither_changes_anything_nor_is_news():
    inventory = Inventory()
    inventory.put_cluster(ray_cluster(5, **READY))
    assert inventory.put_cluster(ray_cluster(4)) is None
    assert inventory.children(KEY)[0][0].provisioned_at is not None
