"""What engine verl relies on inside verl 0.9.1, with the shape it had when it was read; `python tests/verl_contracts.py` records it.

A new release of verl changes some of these; then the code of ours that is named here has to be read against it, not only the number.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
from pathlib import Path
from typing import Any

RECORD = Path(__file__).parent / "data" / "verl_contracts.json"
TRAINER, AGENT = "verl.trainer.ppo.v1.trainer_base:PPOTrainer", "verl.experimental.agent_loop.agent_loop"
WORKERS, FSDP = "verl.workers.engine_workers", "verl.workers.engine.fsdp.transformer_impl"
RELIED_ON = {
    "trainer.py": [
        *(
            f"{TRAINER}.{name}"
            for name in (
                "__init__",
                "init",
                "fit",
                "_setup",
                "_build_replay_buffer",
                "_init_dataloader",
                "_init_tokenizer",
                "_init_resource_pool_mgr",
                "_load_checkpoint",
                "_step_once",
                "_balance_batch",
                "_compute_old_log_prob",
                "_compute_ref_log_prob",
                "_compute_advantage",
                "_update_actor",
                "get_llm_client",
            )
        ),
        "verl.trainer.ppo.v1.trainer_sync:PPOTrainerSync.on_init_end",
        "verl.trainer.ppo.v1.trainer_sync:PPOTrainerSync.on_sample_end",
        "verl.trainer.main_ppo:TaskRunnerV1.__ray_metadata__.modified_class.run",
        "verl.checkpoint_engine.base:CheckpointEngineManager.update_weights",
        "verl.checkpoint_engine.base:CheckpointEngineManager.sleep_replicas",
        "verl.experimental.reward_loop.reward_loop:RewardLoopManager.__init__",
        "verl.experimental.reward_loop.reward_loop:RewardLoopManager._init_reward_loop_workers",
    ],
    "rollout_worker.py": [
        f"{AGENT}:AgentLoopWorker.__init__",
        f"{AGENT}:AgentLoopManager.__init__",
        f"{AGENT}:AgentLoopManager.create",
        f"{AGENT}:AgentLoopManager._init_agent_loop_workers",
        "verl.trainer.ppo.v1.agent_loop_tq:AgentLoopWorkerTQ.__ray_metadata__.modified_class.__init__",
        "verl.workers.rollout.llm_server:LLMServerClient.generate",
        "verl.workers.rollout.llm_server:LLMServerClient._acquire_server",
        "verl.workers.rollout.llm_server:LLMServerManager._initialize_llm_servers",
        "verl.workers.rollout.llm_server:LLMServerManager._init_global_load_balancer",
        "verl.workers.rollout.router:GlobalRequestLoadBalancer.acquire_server",
        "verl.workers.rollout.router:GlobalRequestLoadBalancer.release_server",
    ],
    "policy_worker.py": [
        f"{WORKERS}:TrainingWorker.__init__",
        f"{WORKERS}:TrainingWorker.train_mini_batch",
        f"{WORKERS}:TrainingWorker.train_batch",
        f"{WORKERS}:TrainingWorker.infer_batch",
        f"{WORKERS}:TrainingWorker._postprocess_output",
        f"{WORKERS}:ActorRolloutRefWorker.init_model",
        f"{WORKERS}:ActorRolloutRefWorker.update_actor",
        f"{WORKERS}:ActorRolloutRefWorker.update_weights",
        f"{WORKERS}:ActorRolloutRefWorker.compute_ref_log_prob",
        f"{WORKERS}:ActorRolloutRefWorker.set_loss_fn",
        f"{WORKERS}:TrainingWorker.set_loss_fn",
    ],
    "policy_engine.py": [
        *(
            f"{FSDP}:FSDPEngine.{name}"
            for name in (
                "__init__",
                "_build_module",
                "_build_fsdp_module",
                "_build_model_optimizer",
                "_build_optimizer",
                "_build_lr_scheduler",
                "forward_backward_batch",
                "_gradient_sync_context",
                "get_data_parallel_size",
                "get_data_parallel_group",
                "optimizer_step",
            )
        ),
        f"{FSDP}:FSDPEngineWithLMHead.forward_step",
        "verl.workers.engine.base:BaseEngine.train_batch",
        "verl.workers.engine.base:BaseEngine.infer_batch",
        "verl.workers.engine.utils:postprocess_batch_func",
        "verl.workers.engine.utils:detach_tree",
        "verl.utils.fsdp_utils:apply_fsdp2",
        "verl.utils.fsdp_utils:_select_fsdp2_wrap_targets",
        "verl.utils.tensordict_utils:index_select_tensor_dict",
    ],
    "alignment_trainer.py": [
        f"{TRAINER}._compute_values",
        f"{TRAINER}._update_critic",
        "verl.single_controller.ray.base:create_colocated_worker_cls",
        "verl.single_controller.ray.base:ResourcePoolManager.create_resource_pool",
    ],
    "discriminator_worker.py": [
        "verl.single_controller.base.worker:Worker.__init__",
        "verl.single_controller.base.decorator:register",
        "verl.single_controller.base.decorator:dispatch_one_to_all",
        "verl.single_controller.base.decorator:collect_all_to_all",
        "verl.utils.distributed:initialize_global_process_group_ray",
    ],
    "losses.py": ["verl.workers.utils.padding:no_padding_2_padding", "verl.utils.metric.utils:Metric.aggregate_dp"],
    "patches.py": [
        "verl.workers.rollout.utils:get_vision_placeholder_token_ids",
        "verl.workers.rollout.vllm_rollout.utils:monkey_patch_compute_logits",
        "verl.workers.rollout.vllm_rollout.utils:vLLMColocateWorkerExtension.monkey_patch_model",
        "verl.workers.rollout.vllm_rollout.vllm_async_server:vLLMHttpServer.run_server",
    ],
    "overrides.py": [
        "verl.workers.rollout.replica:RolloutReplica.__init__",
        "verl.workers.rollout.replica:RolloutReplica.init_hybrid",
        "verl.workers.rollout.vllm_rollout.vllm_async_server:vLLMReplica.launch_servers",
    ],
    "cpu_platform.py": ["verl.plugin.platform.platform_base:PlatformBase.ray_resource_options"],
    "composition.py": ["verl.utils.config:validate_config"],
}


def resolve(place: str) -> Any:
    module, _, path = place.partition(":")
    found: Any = importlib.import_module(module)
    for name in path.split("."):
        found = getattr(found, name)
    return inspect.unwrap(found)


def shape_of(function: Any) -> dict[str, str]:
    """Signature, and a digest of the source without white space and comment lines."""
    lines = [line.strip() for line in inspect.getsource(function).splitlines()]
    source = "".join("".join(line.split()) for line in lines if not line.startswith("#"))
    return {"signature": str(inspect.signature(function)), "source": hashlib.sha256(source.encode()).hexdigest()[:16]}


def recorded() -> dict[str, dict[str, str]]:
    return json.loads(RECORD.read_text())


if __name__ == "__main__":
    found = {place: shape_of(resolve(place)) for places in RELIED_ON.values() for place in places}
    RECORD.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
