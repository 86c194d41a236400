"""Condition types, and every reason next to its message. Nobody else spells one."""

from __future__ import annotations

from dataclasses import dataclass

ACCEPTED = "Accepted"
ADMITTED = "Admitted"
CLUSTER_READY = "ClusterReady"
STALLED = "Stalled"
SUSPENDED = "Suspended"
FINISHED = "Finished"
SUCCEEDED = "Succeeded"


@dataclass(frozen=True)
class Reason:
    """A CamelCase word for machines and a sentence for people."""

    name: str
    message: str

    def with_facts(self, **facts: object) -> Reason:
        """The sentence filled in."""
        return Reason(self.name, self.message.format(**facts))


VALID = Reason("Valid", "The spec is valid.")
SPEC_REJECTED = Reason("SpecRejected", "{problems}")
STAGE_CHANGED = Reason(
    "StageChanged",
    "The configuration, data or inputs of {stages} changed after work was committed with the old ones. Either give the run another "
    "metadata.name and storage, or undo the change{redo}; nothing was deleted.",
)
REDO = ", or let the work be done again with `prism run FILE --redo`"

DELETED = Reason("Deleted", "The object is being deleted.")
LETTING_GO = Reason("Stopping", "Waits until every pod of attempt {attempt} of stage '{stage}' is gone.")
START_REFUSED = Reason("StartRefused", "Attempt {attempt} of stage '{stage}' cannot be created: {message} It is tried again.")

QUOTA_RESERVED = Reason("QuotaReserved", "Queue '{queue}' has admitted the attempt.")
WAITING_FOR_QUOTA = Reason("WaitingForQuota", "Queue '{queue}' has not admitted the attempt yet.")
NOT_QUEUED = Reason("NotQueued", "No queue is asked for.")

CLUSTER_READY_NOW = Reason("Ready", "Attempt {attempt} of stage '{stage}' lives.")
PROVISIONING = Reason("Provisioning", "Attempt {attempt} of stage '{stage}' is being started.")
NO_ATTEMPT = Reason("NoAttempt", "No attempt lives.")

STAGE_WAITING = Reason("Waiting", "Waits for the stages before it.")
STAGE_RUNNING = Reason("Running", "Attempt {attempt} runs.")
STAGE_RETRYING = Reason("StageRetrying", "Attempt {attempt} failed ({failure_class}): {message}. It is tried again.")
STAGE_VERIFIED = Reason("Verified", "Committed {uri} at step {step}.")
STAGE_SKIPPED = Reason("Skipped", "Takes {uri} as its output.")
STAGE_HELD = Reason("Held", "Goes on when the run does.")
RETRIES_EXHAUSTED = Reason(
    "RetriesExhausted", "Stage '{stage}' failed in attempt {attempt} ({failure_class}; {retries}): {message}{log} {advice}"
)
DEADLINE_EXCEEDED = Reason(
    "DeadlineExceeded",
    "The run took longer than spec.deadlines.runSeconds ({seconds} s). Raise it. {again}",
)

PROGRESSING = Reason("Progressing", "There are signs of work.")
NO_HEARTBEAT = Reason(
    "NoHeartbeat", "Attempt {attempt} of stage '{stage}' showed no sign of work within progressSeconds; it is being stopped."
)

NOT_SUSPENDED = Reason("Resumed", "Not suspended.")
USER_REQUESTED = Reason("UserRequested", "spec.suspend is true; set it to false to go on from the last checkpoint.")
INTERRUPTED = Reason("Interrupted", "Stopped on request; run the same command again to go on from the last checkpoint.")
STOPPING = Reason("Stopping", "Attempt {attempt} of stage '{stage}' was asked to save and stop ({why}).")

IN_PROGRESS = Reason("InProgress", "Not finished.")
ALL_STAGES_VERIFIED = Reason("AllStagesVerified", "Every stage has committed its final checkpoint.")
STAGE_FAILED = "StageFailed"

ADVICE = {
    "UserError": "Correct what it names.",
    "Hang": "Look at the end of the log for what it waited for; raise deadlines.progressSeconds if it only is slow.",
    "OutOfMemory": "Lower config.microBatchSize (engine verl's policy: config.gpu.tokensPerGpu) or the lengths, or give it more memory.",
    "NodeLost": "Look whether the kernel's out-of-memory killer (dmesg) or somebody ended it.",
    "HeadLost": "Look at the events of its cluster.",
    "Preempted": "Find out who stops it.",
    "CheckpointCorrupt": "Restore the named file, or delete the checkpoint's folder so that the stage which made it is done again.",
    "ControlPlane": "Look at what kept it from starting.",
    "DeadlineExceeded": "Raise deadlines.stageSeconds or give it less to do.",
}
"""By failure class: what to do."""
AGAIN = "Then run again: it goes on from the last checkpoint."
AGAIN_ON_A_CLUSTER = "Then `kubectl prism retry {run}`: a new run takes over what is verified."
