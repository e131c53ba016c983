//! The ports that the service uses: a store that takes the batches of a lane, and a ledger of faulty flags.
//!
//! The service names these traits and never a database.

use uuid::Uuid;

use crate::lane::Lane;
use crate::store::error::store_error::StoreError;
use crate::store::model::batch::Batch;
use crate::store::model::fence::{BatchSpan, Checkpoint, CommitOutcome};
use crate::store::model::flag::{Applied, Correction, FlagChange};
use crate::store::model::migration::Schema;

/// A database that takes the batches of one lane.
pub trait Store {
    /// Writes this lane from now on. Gives up the state of another lane, including a commit in doubt.
    fn assign(&mut self, lane: Lane);

    /// Claims the lane and returns its checkpoint: [`Checkpoint::default`] if the database does not know the lane. If
    /// the journal had another number of lanes, all of them go back to the lane that was furthest behind.
    ///
    /// # Errors
    /// Either nothing has changed or everything has; call it again. While another session holds the lane, the error is
    /// "unavailable".
    fn open_lane(&mut self) -> impl Future<Output = Result<Checkpoint, StoreError>> + Send;

    /// Commits everything in the batch and the lane's new checkpoint in one transaction. If it returns
    /// [`CommitOutcome::Committed`], the batch survives a crash of this process and of the database. The batch is
    /// sorted, and otherwise not changed.
    ///
    /// # Errors
    /// If [`StoreError::in_doubt`], the batch may be committed or not: offer the same batch again, unchanged, and the
    /// fence finds out. Otherwise nothing was committed, and another batch may be offered from the same checkpoint.
    fn commit(
        &mut self,
        batch: &mut Batch,
        span: &BatchSpan,
    ) -> impl Future<Output = Result<CommitOutcome, StoreError>> + Send;

    /// Deletes the checkpoints of the journal. Nothing is written from it again under its id.
    ///
    /// # Errors
    /// Harmless: a few checkpoint rows are left over.
    fn retire(&mut self) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Compares the schema of the database with the migrations of this program.
    ///
    /// # Errors
    /// When the database does not answer.
    fn schema(&mut self) -> impl Future<Output = Result<Schema, StoreError>> + Send;

    /// The time of the database server, microseconds since 1970-01-01 UTC; `None` if the database has no clock of its own.
    ///
    /// # Errors
    /// When the database does not answer.
    fn server_now_us(&mut self) -> impl Future<Output = Result<Option<i64>, StoreError>> + Send {
        async { Ok(None) }
    }

    /// Closes the connection in good order.
    fn close(&mut self) -> impl Future<Output = ()> + Send;
}

/// A database that holds the ledger of faulty flags, and positions that follow it. The ledger has the changes that
/// marshals made, in the order of `seq`.
///
/// A position is faulty exactly while a live flag covers it. Changes may come more than once, in any order, from
/// several processes, and before or after the positions that they are about: the result is the same.
pub trait Ledger {
    /// Records changes, makes positions follow, and returns the result of each change.
    ///
    /// # Errors
    /// Some of the changes, or all, may be recorded or applied. Offer them again, or only some of them: an applied one
    /// is stale then, a recorded one is applied.
    fn apply(&mut self, changes: &[FlagChange]) -> impl Future<Output = Result<Vec<Applied>, StoreError>> + Send;

    /// Reads changes that are recorded and not applied, as flag and `seq`, at most `most`, without the changes in `except`.
    ///
    /// # Errors
    /// Harmless: it is tried again.
    fn unapplied(
        &mut self,
        most: usize,
        except: &[(Uuid, i64)],
    ) -> impl Future<Output = Result<Vec<(Uuid, i64)>, StoreError>> + Send;

    /// Makes positions follow these flags, if they are recorded and not applied.
    ///
    /// # Errors
    /// All of them may be applied, or none. Offer them again, or only some of them.
    fn follow(&mut self, flags: &[Uuid]) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Makes positions follow flags that are recorded and not applied, at most `most` flags. Returns their number.
    ///
    /// # Errors
    /// Harmless: it is tried again.
    fn finish(&mut self, most: usize) -> impl Future<Output = Result<usize, StoreError>> + Send
    where
        Self: Send,
    {
        async move {
            let flags: Vec<_> = self.unapplied(most, &[]).await?.into_iter().map(|(flag, _)| flag).collect();
            if !flags.is_empty() {
                self.follow(&flags).await?;
            }
            Ok(flags.len())
        }
    }

    /// Reads changes that Directus' tables have and the ledger does not, oldest first, at most `most`, without the changes
    /// in `except`. Empty if these tables are not installed, see `odograph migrate --directus`.
    ///
    /// # Errors
    /// Harmless: it is tried again.
    fn behind(
        &mut self,
        most: usize,
        except: &[(Uuid, i64)],
    ) -> impl Future<Output = Result<Vec<FlagChange>, StoreError>> + Send;

    /// Reads the first corrections that are not published, in order. `None` while another session publishes them.
    /// Otherwise this session publishes them as long as its connection lasts.
    ///
    /// # Errors
    /// Harmless: it is tried again.
    fn corrections(&mut self, most: usize) -> impl Future<Output = Result<Option<Vec<Correction>>, StoreError>> + Send;

    /// Removes corrections that are published.
    ///
    /// # Errors
    /// They are published once more, under the same ids.
    fn remove_corrections(&mut self, ids: &[i64]) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Removes the oldest corrections above [`OUTBOX_MAX`] and returns their number. Those are lost.
    ///
    /// # Errors
    /// Harmless: it is tried again.
    fn trim_corrections(&mut self) -> impl Future<Output = Result<u64, StoreError>> + Send;

    /// The time of the database server, microseconds since 1970-01-01 UTC; `None` if the database has no clock of its own.
    ///
    /// # Errors
    /// When the database does not answer.
    fn server_now_us(&mut self) -> impl Future<Output = Result<Option<i64>, StoreError>> + Send {
        async { Ok(None) }
    }

    /// Closes the connection in good order.
    fn close(&mut self) -> impl Future<Output = ()> + Send;
}

/// Maximum of corrections that wait for Redis: as many as the corrected stream holds, which would drop older ones as
/// well.
pub const OUTBOX_MAX: i64 = 1_000_000;
