"""What exists, sorted once into the questions the rules ask."""

from builders import OTHER_DIGEST, make_pipeline, make_run
from prism_operator.children import Children
from prism_operator.observed import observe
from prism_trainer.contract.checkpoint import CheckpointRef


def sft():
    return make_run().stage("sft").scene()


def test_a_stage_is_done_when_its_final_manifest_has_the_planned_digest():
    assert sft().attempt("sft").final("sft").observe().current is None


def test_an_intermediate_checkpoint_does_not_make_a_stage_done():
    assert sft().attempt("sft").intermediate("sft").observe().current.name == "sft"


def test_a_final_manifest_of_another_configuration_is_a_change():
    stage = sft().attempt("sft", config_digest=OTHER_DIGEST).final("sft", digest=OTHER_DIGEST).observe().stage("sft")
    assert not stage.is_done and stage.changed_from == OTHER_DIGEST


def test_work_begun_anew_after_a_change_is_no_change_any_more():
    scene = sft().attempt("sft", 1, config_digest=OTHER_DIGEST).final("sft", digest=OTHER_DIGEST).attempt("sft", 2)
    assert scene.observe().stage("sft").changed_from is None


def test_going_back_to_the_old_configuration_finds_its_work_done():
    scene = sft().attempt("sft", 1).final("sft").attempt("sft", 2, config_digest=OTHER_DIGEST).final("sft", 2, digest=OTHER_DIGEST)
    assert scene.observe().stage("sft").is_done


def test_a_stage_goes_on_from_its_last_step_whichever_attempt_made_it():
    scene = sft().attempt("sft", 1).intermediate("sft", 1, step=7).attempt("sft", 2).intermediate("sft", 2, step=3)
    assert scene.observe().stage("sft").intermediate[-1].step == 7


def test_a_resume_never_takes_a_checkpoint_of_another_configuration():
    scene = sft().attempt("sft").intermediate("sft", 1, step=2).intermediate("sft", 1, step=9, digest=OTHER_DIGEST)
    assert [c.step for c in scene.observe().stage("sft").intermediate] == [2]


def test_attempt_numbers_go_on_after_all_that_was_seen_anywhere():
    assert sft().attempt("sft", 2).observe().stage("sft").next_attempt == 3
    assert sft().intermediate("sft", 4).observe().stage("sft").next_attempt == 5
    assert sft().unfinished("sft", 6, "step-000001").observe().stage("sft").next_attempt == 7


def test_order_and_duplicates_do_not_matter():
    scene = make_pipeline().scene().done("sft", "discriminator").attempt("alignment", 1).intermediate("alignment").live("alignment", 2)
    children = scene.children()
    shuffled = Children(children.wishes, children.attempts[::-1] * 2, children.checkpoints[::-1] * 2)
    assert observe(scene.plan, shuffled, None) == observe(scene.plan, children, None)


def test_of_two_records_of_one_attempt_the_living_one_counts():
    assert len(sft().attempt("sft", 1, failed="UserError").live("sft", 1).observe().live) == 1


def test_a_skipped_stage_is_done_with_the_checkpoint_it_is_skipped_with():
    run = make_run().stage("sft", checkpoint={"uri": "elsewhere"}).stage("rlvr")
    pin = CheckpointRef(stage="sft", uri="/elsewhere", digest=OTHER_DIGEST)
    scene = run.scene()
    scene.plan = run.plan(pins={"sft": pin})
    assert scene.observe().stage("sft").output == pin


def test_a_final_checkpoint_of_another_configuration_is_kept_in_mind():
    scene = sft().attempt("sft", config_digest=OTHER_DIGEST).final("sft", digest=OTHER_DIGEST)
    assert scene.observe().stage("sft").superseded == scene.checkpoints[0]
    assert scene.final("sft", 2).observe().stage("sft").superseded is None


def test_an_attempt_that_has_ended_remains_while_its_cluster_does():
    observed = sft().attempt("sft", 1, failed="NodeLost", remains=True).attempt("sft", 2).live("sft", 3, remains=True).observe()
    assert [record.number for record in observed.remaining] == [1]
    assert [attempt.number for attempt in observed.stage("sft").remaining] == [1]
