//! What must be measured: accusations, verdicts on them, and carrying those out.

use alloy_primitives::{Address, B256};

use super::{
    Audit, AuditError, Compensation, Fault, Offence, Punishment, QuorumSignature, Request, StatementEvidence,
    Surroundings, after,
};
use crate::{
    escrow::Call,
    ids::{Lane, LeaseId, ModelId, TaskId},
    messages::{Channel, Message as _, Outcome, TaskKind, Verdict},
    units::{Amount, UnixSeconds},
};

/// What a task is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// What a host did under a lease.
    Lease {
        /// The lease.
        lease: LeaseId,
        /// What a customer paid too much for.
        bill: Option<Bill>,
    },
    /// Who made a model.
    Ownership {
        /// The model.
        model: ModelId,
    },
}

/// What a customer paid, and is to be paid back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bill {
    /// For what.
    pub request: Request,
    /// The payer of its channel.
    pub payer: Address,
    /// How much.
    pub refund: Amount,
}

/// How far a task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskState {
    /// There is no verdict yet.
    Open,
    /// By a verdict that can still be contradicted.
    Decided(Outcome),
    /// Carried out.
    Closed(Decision),
}

/// How a task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// By verdict.
    Verdict(Outcome),
    /// A quorum contradicted itself, or none was found in time.
    Void,
}

/// An audit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Task {
    /// What was done, allegedly.
    pub kind: TaskKind,
    /// To whom or what.
    pub subject: Subject,
    /// How far it is.
    pub state: TaskState,
    /// Until when a verdict, or one that contradicts it, is taken.
    pub deadline: UnixSeconds,
    /// Who accused.
    pub opener: Address,
    /// Who is accused, and gets the bond of an accusation that fails.
    pub accused: Address,
    /// Root over the evidence.
    pub evidence_root: B256,
}

/// An accusation by a customer, who takes the bill along.
#[derive(Clone, Debug)]
pub struct Accusation {
    /// What was done.
    pub kind: TaskKind,
    /// Root over the evidence.
    pub evidence_root: B256,
    /// The bill.
    pub bill: StatementEvidence,
    /// The channel that paid it.
    pub channel: Channel,
}

/// What closing a task did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closure {
    /// How it ended.
    pub decision: Decision,
    /// What the host was punished with; nothing where the request was punished before.
    pub punishment: Option<Punishment>,
    /// The model that now belongs to who claimed it.
    pub transferred: Option<ModelId>,
}

impl Audit {
    /// An audit.
    pub fn task(&self, task: TaskId) -> Option<&Task> {
        let place = task.get().checked_sub(1).and_then(|place| usize::try_from(place).ok())?;
        self.tasks.get(place)
    }

    /// All audits, in order.
    pub fn tasks(&self) -> impl Iterator<Item = (TaskId, &Task)> {
        (1..).map(TaskId::new).zip(&self.tasks)
    }

    /// Accuses a host. Costs the task bond, which comes back unless a verdict clears the host. Anybody may.
    pub fn open_task(
        &mut self,
        call: Call,
        coins: Amount,
        lease: LeaseId,
        kind: TaskKind,
        evidence_root: B256,
    ) -> Result<TaskId, AuditError> {
        self.accuse_host(call, coins, kind, evidence_root, (lease, None))
    }

    /// Accuses a host of a bill that was too high. A guilty verdict pays the channel's payer back what the bill charged, and not
    /// more than was claimed on its lane: a host must not get its own bond back for a bill that nobody paid.
    pub fn accuse(
        &mut self,
        call: Call,
        coins: Amount,
        surroundings: &impl Surroundings,
        accusation: &Accusation,
    ) -> Result<TaskId, AuditError> {
        let Accusation { kind, evidence_root, bill, channel } = accusation;
        let lease = self.known_lease(bill.lease())?;
        bill.verify(&self.domains, lease)?;
        let (expected, actual) = (bill.statement.channelId.into(), channel.digest(&self.domains.channels));
        if actual != expected {
            return Err(AuditError::WrongChannel { expected, actual });
        }
        let lane = surroundings.lane(actual, Lane::new(bill.statement.lane));
        let paid = lane.filter(|lane| lane.lease == bill.lease());
        let paid = paid.filter(|lane| lane.counts.requests() >= bill.statement.seq.saturating_to::<u64>());
        // What was claimed had a cost.
        let paid = paid.map_or(Amount::ZERO, |lane| lease.prices.cost_up(lane.counts).unwrap_or(Amount::MAX));
        let refund = paid.min(Amount::new(bill.statement.charge));
        let paid = Bill { request: bill.request(), payer: channel.payer, refund };
        self.accuse_host(call, coins, *kind, *evidence_root, (bill.lease(), Some(paid)))
    }

    /// Asks who made a model, for a challenger; the registry calls, and decides whether it may be asked.
    pub fn open_ownership_task(
        &mut self,
        call: Call,
        coins: Amount,
        model: ModelId,
        evidence_root: B256,
    ) -> Result<TaskId, AuditError> {
        let accused = self.creator(model).unwrap_or_default();
        let subject = Subject::Ownership { model };
        self.new_task(call, coins, TaskKind::Ownership, evidence_root, (subject, accused))
    }

    /// Decides a task, with the signature of a quorum. A second one that says otherwise, in time, voids it.
    pub fn submit_verdict(
        &mut self,
        call: Call,
        verdict: &Verdict,
        signature: &QuorumSignature,
    ) -> Result<Option<Closure>, AuditError> {
        let task = *self.known_task(verdict.task)?;
        let lease = match task.subject {
            Subject::Lease { lease, .. } => lease,
            Subject::Ownership { .. } => LeaseId::new(0),
        };
        if verdict.lease != lease || verdict.kind != task.kind {
            return Err(AuditError::VerdictMismatch);
        }
        require_open(&task)?;
        if call.now > task.deadline {
            return Err(AuditError::TooLate { deadline: task.deadline });
        }
        self.require_quorum(verdict.digest(&self.domains.verdicts).into(), signature)?;
        match task.state {
            TaskState::Decided(outcome) if outcome == verdict.outcome => Err(AuditError::VerdictMismatch),
            TaskState::Decided(_) => self.end_task(verdict.task, Decision::Void).map(Some),
            TaskState::Open | TaskState::Closed(_) => {
                let deadline = after(call.now, self.rules.resolve_window);
                if let Some(task) = self.task_mut(verdict.task) {
                    task.state = TaskState::Decided(verdict.outcome);
                    task.deadline = deadline;
                }
                Ok(None)
            }
        }
    }

    /// Carries a verdict out once it can no longer be contradicted, or closes a task that found none in time. Anybody may.
    pub fn resolve(
        &mut self,
        call: Call,
        surroundings: &impl Surroundings,
        task: TaskId,
    ) -> Result<Closure, AuditError> {
        let record = *self.known_task(task)?;
        require_open(&record)?;
        if call.now <= record.deadline {
            return Err(AuditError::TooEarly { from: record.deadline });
        }
        let decision = match record.state {
            TaskState::Decided(outcome) => Decision::Verdict(outcome),
            TaskState::Open | TaskState::Closed(_) => Decision::Void,
        };
        let mut closure = self.end_task(task, decision)?;
        if decision != Decision::Verdict(Outcome::Guilty) {
            return Ok(closure);
        }
        match record.subject {
            Subject::Ownership { model } => {
                self.set_creator(model, record.opener);
                closure.transferred = Some(model);
            }
            Subject::Lease { lease, bill } => {
                // However many tasks there are on one request.
                let new = bill.is_none_or(|bill| self.punished.insert(Fault::Bill(bill.request)));
                if let Some(offence) = Offence::of_verdict(record.kind).filter(|_| new) {
                    let payer = bill.map(|bill| (bill.payer, bill.refund));
                    let compensation =
                        Compensation { payer, creator_loss: Amount::ZERO, reporter: Some(record.opener) };
                    let punishment = self.punish(call.now, surroundings, lease, offence, compensation)?;
                    closure.punishment = Some(punishment);
                }
            }
        }
        Ok(closure)
    }

    fn accuse_host(
        &mut self,
        call: Call,
        coins: Amount,
        kind: TaskKind,
        evidence_root: B256,
        (lease, bill): (LeaseId, Option<Bill>),
    ) -> Result<TaskId, AuditError> {
        if Offence::of_verdict(kind).is_none() {
            return Err(AuditError::WrongKind { kind });
        }
        let host = self.known_lease(lease)?.host;
        // Later the bond is free; accusations without end would hold it for ever.
        let deadline = self.claimable_until(lease)?;
        if call.now > deadline {
            return Err(AuditError::TooLate { deadline });
        }
        let task = self.new_task(call, coins, kind, evidence_root, (Subject::Lease { lease, bill }, host))?;
        self.case_opened(lease);
        Ok(task)
    }

    fn new_task(
        &mut self,
        call: Call,
        coins: Amount,
        kind: TaskKind,
        evidence_root: B256,
        (subject, accused): (Subject, Address),
    ) -> Result<TaskId, AuditError> {
        self.audit_coins.take(self.rules.task_bond, coins)?;
        let deadline = after(call.now, self.rules.verdict_window);
        let (state, opener) = (TaskState::Open, call.caller);
        self.tasks.push(Task { kind, subject, state, deadline, opener, accused, evidence_root });
        let number = u64::try_from(self.tasks.len()).map_err(|_| AuditError::Overflow { what: "tasks" })?;
        Ok(TaskId::new(number))
    }

    /// The bond of an accusation goes to the accused if a verdict cleared him, and back otherwise.
    fn end_task(&mut self, task: TaskId, decision: Decision) -> Result<Closure, AuditError> {
        let record = *self.known_task(task)?;
        if let Some(record) = self.task_mut(task) {
            record.state = TaskState::Closed(decision);
        }
        let cleared = decision == Decision::Verdict(Outcome::NotGuilty);
        let winner = if cleared { record.accused } else { record.opener };
        self.audit_coins.owe(winner, self.rules.task_bond);
        if let Subject::Lease { lease, .. } = record.subject {
            self.case_closed(lease);
        }
        Ok(Closure { decision, punishment: None, transferred: None })
    }

    fn known_task(&self, task: TaskId) -> Result<&Task, AuditError> {
        self.task(task).ok_or(AuditError::UnknownTask { task })
    }

    fn task_mut(&mut self, task: TaskId) -> Option<&mut Task> {
        let place = task.get().checked_sub(1).and_then(|place| usize::try_from(place).ok())?;
        self.tasks.get_mut(place)
    }
}

const fn require_open(task: &Task) -> Result<(), AuditError> {
    if matches!(task.state, TaskState::Closed(_)) { Err(AuditError::TaskClosed) } else { Ok(()) }
}
