//! Scans whose panics are errors.
//!
//! The Parquet crate panics on some files that are not what they claim to be. `decoding` of the
//! archive catches that where the archive's own readers decode. DataFusion decodes while its streams
//! are polled, so here the streams of every scan are polled under the same guard, and so is the
//! whole answer, for what fails above a scan.
//!
//! Invariant: a file that the decoder cannot bear costs the query an error that names the file.

use std::cell::RefCell;
use std::fmt::{self, Formatter};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use datafusion::common::tree_node::{Transformed, TreeNode as _, TreeNodeRecursion};
use datafusion::common::{DataFusionError, Result};
use datafusion::datasource::source::DataSourceExec;
use datafusion::execution::{RecordBatchStream, SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use futures::Stream;
use strongroom_parquet::{Fault, quietly};
use thiserror::Error;

/// A scan that did not survive a file.
#[derive(Debug, Error)]
#[error("cannot decode {}", path.display())]
struct ScanError {
    path: PathBuf,
    #[source]
    source: Fault,
}

thread_local! {
    /// The file that the stream that is being polled has read last.
    static LAST: RefCell<Option<PathBuf>> = const { RefCell::new(None) };
}

/// Notes that a file is read on this thread.
pub(crate) fn note(path: &Path) {
    let _ = LAST.try_with(|last| last.borrow_mut().replace(path.to_owned()));
}

/// Puts a guard around every scan of a plan.
pub(crate) fn guard(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    let guarded = plan.transform_up(|node| {
        let is_scan = node.downcast_ref::<DataSourceExec>().is_some();
        Ok(if is_scan {
            Transformed::yes(Arc::new(Scan { inner: node }) as Arc<dyn ExecutionPlan>)
        } else {
            Transformed::no(node)
        })
    });
    Ok(guarded?.data)
}

/// A scan and its guard.
#[derive(Debug)]
struct Scan {
    inner: Arc<dyn ExecutionPlan>,
}

impl DisplayAs for Scan {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("Guard")
    }
}

impl ExecutionPlan for Scan {
    fn name(&self) -> &str {
        "Guard"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.inner.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.inner]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let inner = children.into_iter().next().unwrap_or_else(|| Arc::clone(&self.inner));
        Ok(Arc::new(Scan { inner }))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let inner = self.inner.execute(partition, context)?;
        Ok(Box::pin(Rows { schema: inner.schema(), inner: Some(inner), last: None }))
    }
}

/// The rows of a scan. It ends after a panic.
struct Rows {
    schema: SchemaRef,
    inner: Option<SendableRecordBatchStream>,
    last: Option<PathBuf>,
}

impl Stream for Rows {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(mut inner) = self.inner.take() else { return Poll::Ready(None) };
        let _ = LAST.try_with(|last| *last.borrow_mut() = self.last.take());
        // What a panic leaves behind is dropped under the same guard.
        let polled = quietly(|| {
            let polled = inner.as_mut().poll_next(context);
            (polled, inner)
        });
        self.last = LAST.try_with(|last| last.borrow_mut().take()).ok().flatten();
        match polled {
            Some((polled, inner)) => {
                self.inner = Some(inner);
                polled
            }
            None => {
                let path = self.last.take().unwrap_or_default();
                let error = ScanError { path, source: Fault::Panicked };
                Poll::Ready(Some(Err(DataFusionError::External(Box::new(error)))))
            }
        }
    }
}

impl RecordBatchStream for Rows {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }
}
