//! The investigator's views.
//!
//! Invariant: a view is a filter, a choice of columns, and columns computed from one row; never a
//! join, a window or an aggregate. So a filter on a view skips files just as a filter on `events`
//! does. Each row of a view is a row of `events`; `audit_id`, `stage` and `source_offset` identify
//! it. The exception is `unfinished_requests`, which looks for later stages of each request in the
//! other rows. So it reads the ids of all files, unless the filter is on
//! `request_received_timestamp`, which all stages of a request share.
//!
//! A long-running request (watch, exec, attach, port-forward) has a row when it starts and one when
//! it ends; a view keeps both, because an audit policy may leave out either.

use std::borrow::Cow;
use std::sync::Arc;

use arrow_schema::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::default_table_source::provider_as_source;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{DataFusionError, Result};
use datafusion::datasource::{TableType, ViewTable};
use datafusion::functions::expr_fn::coalesce;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, TableProviderFilterPushDown, col};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::SessionContext;
use strongroom_schemas::{Table, events};

use crate::functions::last_of;
use crate::gate;
use crate::outcome;
use crate::snapshots::Snapshots;
use crate::table::SealedTable;

/// Column of the user whose permissions the request used: the impersonated user if there is one,
/// else the user who authenticated.
pub(crate) const ACTOR: &str = "actor";
/// Column of the last address in `source_ips`, the only one that a client cannot set.
pub(crate) const SOURCE_IP: &str = "source_ip";
/// Column of the user who authenticated, beside [`ACTOR`].
pub(crate) const AUTHENTICATED_USER: &str = "authenticated_user";

/// A view: its name, what it shows, and its definition.
pub(crate) struct View {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    sql: &'static str,
}

pub(crate) const VIEWS: [View; 8] = [
    View {
        name: "secret_access",
        about: "every request for Secrets, allowed or not",
        sql: "
SELECT stage_timestamp, cluster, actor, authenticated_user, user_name, impersonated_user_name, source_ip, verb, namespace, name,
       CASE WHEN name IS NOT NULL THEN 'one' WHEN namespace IS NOT NULL THEN 'namespace' ELSE 'cluster' END AS scope,
       response_code, outcome, nullif(outcome, 'unknown') = 'success' AS succeeded, authz_decision, authz_reason, user_agent, request_uri,
       stage, level, audit_id, source, source_offset, date
FROM events
WHERE resource = 'secrets' AND (api_group IS NULL OR api_group = '') AND stage IS DISTINCT FROM 'RequestReceived'",
    },
    View {
        name: "exec_sessions",
        about: "exec, attach and port-forward into pods, with the command, including those through the node proxy",
        sql: "
SELECT stage_timestamp, cluster, actor, authenticated_user, user_name, impersonated_user_name, source_ip, namespace, name, resource, subresource,
       uri_param(request_uri, 'container') AS container,
       coalesce(uri_params(request_uri, 'command'), uri_params(request_uri, 'cmd')) AS command,
       uri_param(request_uri, 'stdin') = 'true' AS stdin, uri_param(request_uri, 'tty') = 'true' AS tty,
       CASE WHEN outcome = 'failure' AND stage IS DISTINCT FROM 'Panic' THEN 'refused' WHEN stage = 'ResponseStarted' THEN 'started'
            WHEN stage = 'ResponseComplete' THEN 'ended' WHEN stage = 'Panic' THEN 'failed' END AS phase,
       verb, outcome, response_code, authz_decision, authz_reason, user_agent, request_uri,
       stage, level, audit_id, source, source_offset, date
FROM events
WHERE ((resource = 'pods' AND subresource IN ('exec', 'attach', 'portforward'))
       OR (resource = 'nodes' AND subresource = 'proxy'
           AND (request_uri LIKE '%/proxy/exec/%' OR request_uri LIKE '%/proxy/run/%'
                OR request_uri LIKE '%/proxy/attach/%' OR request_uri LIKE '%/proxy/portForward/%')))
      AND stage IS DISTINCT FROM 'RequestReceived'",
    },
    View {
        name: "rbac_changes",
        about: "writes to roles and bindings, with what was granted to whom",
        sql: "
SELECT stage_timestamp, cluster, actor, authenticated_user, user_name, impersonated_user_name, source_ip, verb, resource, namespace,
       coalesce(name, json_get_str(request_object, 'metadata', 'name'), json_get_str(response_object, 'metadata', 'name')) AS name,
       coalesce(json_get_str(request_object, 'roleRef', 'kind'), json_get_str(response_object, 'roleRef', 'kind')) AS role_kind,
       coalesce(json_get_str(request_object, 'roleRef', 'name'), json_get_str(response_object, 'roleRef', 'name')) AS role_name,
       coalesce(json_get_json(request_object, 'subjects'), json_get_json(response_object, 'subjects')) AS subjects,
       coalesce(json_get_json(request_object, 'rules'), json_get_json(response_object, 'rules')) AS rules,
       response_code, outcome, nullif(outcome, 'unknown') = 'success' AS succeeded, authz_decision, authz_reason, user_agent, request_uri,
       request_object, response_object, stage, level, audit_id, source, source_offset, date
FROM events
WHERE api_group = 'rbac.authorization.k8s.io'
      AND resource IN ('roles', 'clusterroles', 'rolebindings', 'clusterrolebindings')
      AND verb IN ('create', 'update', 'patch', 'delete', 'deletecollection')
      AND stage IS DISTINCT FROM 'RequestReceived'",
    },
    View {
        name: "auth_failures",
        about: "requests refused: not authenticated, not authorised, or not admitted; and failed logins to OpenShift",
        sql: "
SELECT stage_timestamp, cluster, actor, authenticated_user, user_name, impersonated_user_name, source_ip,
       CASE WHEN resource IS NULL AND strpos(annotations, 'authentication.openshift.io/decision') > 0
                 AND json_get_str(annotations, 'authentication.openshift.io/decision') IN ('deny', 'error') THEN 'login'
            WHEN response_code = 401 THEN 'unauthenticated' WHEN authz_decision = 'allow' THEN 'not admitted'
            ELSE 'forbidden' END AS failure,
       json_get_str(annotations, 'authentication.openshift.io/username') AS login_name,
       verb, api_group, resource, subresource, namespace, name, response_code, response_reason, response_message,
       authz_decision, authz_reason, user_agent, request_uri, stage, level, audit_id, source, source_offset, date
FROM events
WHERE response_code IN (401, 403) OR authz_decision = 'forbid'
      OR (resource IS NULL AND strpos(annotations, 'authentication.openshift.io/decision') > 0
          AND json_get_str(annotations, 'authentication.openshift.io/decision') IN ('deny', 'error'))",
    },
    View {
        name: "pod_changes",
        about: "writes to pods and to the workloads that make them, with their containers and their node access",
        sql: "
SELECT stage_timestamp, cluster, actor, authenticated_user, user_name, impersonated_user_name, source_ip, verb, resource, subresource, namespace,
       coalesce(name, json_get_str(response_object, 'metadata', 'name'), json_get_str(request_object, 'metadata', 'name')) AS name,
       coalesce(json_get_str(request_object, 'spec', 'serviceAccountName'),
                json_get_str(request_object, 'spec', 'template', 'spec', 'serviceAccountName'),
                json_get_str(request_object, 'spec', 'jobTemplate', 'spec', 'template', 'spec', 'serviceAccountName')) AS service_account,
       coalesce(json_get_json(request_object, 'spec', 'containers'),
                json_get_json(request_object, 'spec', 'ephemeralContainers'),
                json_get_json(request_object, 'spec', 'template', 'spec', 'containers'),
                json_get_json(request_object, 'spec', 'jobTemplate', 'spec', 'template', 'spec', 'containers')) AS containers,
       coalesce(json_get_json(request_object, 'spec', 'volumes'),
                json_get_json(request_object, 'spec', 'template', 'spec', 'volumes'),
                json_get_json(request_object, 'spec', 'jobTemplate', 'spec', 'template', 'spec', 'volumes')) AS volumes,
       response_code, outcome, nullif(outcome, 'unknown') = 'success' AS succeeded, authz_decision, authz_reason, user_agent, request_uri,
       request_object, response_object, stage, level, audit_id, source, source_offset, date
FROM events
WHERE resource IN ('pods', 'deployments', 'daemonsets', 'statefulsets', 'replicasets', 'replicationcontrollers', 'jobs', 'cronjobs')
      AND verb IN ('create', 'update', 'patch', 'delete', 'deletecollection')
      AND (subresource IS NULL OR subresource IN ('', 'binding', 'ephemeralcontainers', 'eviction', 'resize', 'scale'))
      AND stage IS DISTINCT FROM 'RequestReceived'",
    },
    View {
        name: "configmap_changes",
        about: "writes to ConfigMaps, with what was written where the audit policy keeps it",
        sql: "
SELECT stage_timestamp, cluster, actor, authenticated_user, user_name, impersonated_user_name, source_ip, verb, namespace,
       coalesce(name, json_get_str(response_object, 'metadata', 'name'), json_get_str(request_object, 'metadata', 'name')) AS name,
       json_get_json(request_object, 'data') AS data,
       response_code, outcome, nullif(outcome, 'unknown') = 'success' AS succeeded, authz_decision, authz_reason, user_agent, request_uri,
       request_object, response_object, stage, level, audit_id, source, source_offset, date
FROM events
WHERE resource = 'configmaps' AND (api_group IS NULL OR api_group = '')
      AND verb IN ('create', 'update', 'patch', 'delete', 'deletecollection')
      AND stage IS DISTINCT FROM 'RequestReceived'",
    },
    View {
        name: "network_policy_changes",
        about: "writes to network policies, those of Calico and Cilium included, with what they let through",
        sql: "
SELECT stage_timestamp, cluster, actor, authenticated_user, user_name, impersonated_user_name, source_ip, verb, api_group, resource, namespace,
       coalesce(name, json_get_str(response_object, 'metadata', 'name'), json_get_str(request_object, 'metadata', 'name')) AS name,
       coalesce(json_get_json(request_object, 'spec', 'podSelector'), json_get_json(request_object, 'spec', 'endpointSelector'),
                json_get_json(request_object, 'spec', 'selector'), json_get_json(request_object, 'spec', 'subject')) AS applies_to,
       json_get_json(request_object, 'spec', 'ingress') AS ingress, json_get_json(request_object, 'spec', 'egress') AS egress,
       response_code, outcome, nullif(outcome, 'unknown') = 'success' AS succeeded, authz_decision, authz_reason, user_agent, request_uri,
       request_object, response_object, stage, level, audit_id, source, source_offset, date
FROM events
WHERE resource IN ('networkpolicies', 'globalnetworkpolicies', 'ciliumnetworkpolicies', 'ciliumclusterwidenetworkpolicies',
                   'adminnetworkpolicies', 'baselineadminnetworkpolicies', 'clusternetworkpolicies')
      AND verb IN ('create', 'update', 'patch', 'delete', 'deletecollection')
      AND (subresource IS NULL OR subresource = '')
      AND stage IS DISTINCT FROM 'RequestReceived'",
    },
    View {
        name: "unfinished_requests",
        about: "requests that were received, but have no later stage in the archive; long-running ones are left out",
        sql: "
SELECT stage_timestamp, request_received_timestamp, cluster, actor, authenticated_user, user_name, source_ip, verb, api_group, resource,
       subresource, namespace, name, user_agent, request_uri, stage, level, audit_id, source, source_offset, date
FROM events AS received
WHERE stage = 'RequestReceived' AND (verb IS NULL OR verb <> 'watch')
      AND (subresource IS NULL OR subresource NOT IN ('attach', 'exec', 'log', 'portforward', 'proxy'))
      AND NOT EXISTS (
          SELECT 1 FROM events AS later
          WHERE later.audit_id = received.audit_id AND later.cluster = received.cluster
                AND later.request_received_timestamp = received.request_received_timestamp
                AND later.stage IS DISTINCT FROM 'RequestReceived')",
    },
];

/// Returns what a table has in it, for listings.
pub(crate) const fn about(table: Table) -> &'static str {
    match table {
        Table::Events => "one row for each audit event",
        Table::Rejects => "received input that could not be decoded",
        Table::Alerts => "every alert raised",
        Table::Activity => "what was done with the archive and its findings",
    }
}

/// `events`, followed by the computed columns [`ACTOR`], [`SOURCE_IP`], [`AUTHENTICATED_USER`] and
/// [`outcome::OUTCOME`]. It is planned as a view and listed as a table.
#[derive(Debug)]
struct EventsTable(ViewTable);

impl EventsTable {
    fn new(context: &SessionContext, sealed: Arc<SealedTable>) -> Result<Self> {
        let mut columns: Vec<Expr> = sealed.schema().fields().iter().map(|field| col(field.name())).collect();
        columns
            .push(coalesce(vec![col(events::IMPERSONATED_USER_NAME), col(events::USER_NAME)]).alias(ACTOR));
        columns.push(last_of().call(vec![col(events::SOURCE_IPS)]).alias(SOURCE_IP));
        columns.push(col(events::USER_NAME).alias(AUTHENTICATED_USER));
        columns.push(outcome::expr(context, &sealed.schema())?.alias(outcome::OUTCOME));
        let plan = LogicalPlanBuilder::scan(Table::Events.name(), provider_as_source(sealed), None)?
            .project(columns)?
            .build()?;
        Ok(EventsTable(ViewTable::new(plan, None)))
    }
}

#[async_trait]
impl TableProvider for EventsTable {
    fn schema(&self) -> SchemaRef {
        self.0.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn get_logical_plan(&self) -> Option<Cow<'_, LogicalPlan>> {
        self.0.get_logical_plan()
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        self.0.supports_filters_pushdown(filters)
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.0.scan(state, projection, filters, limit).await
    }
}

/// Registers the archive's tables. [`plan_view`] plans views when they are used.
pub(crate) fn register_tables(context: &SessionContext, snapshots: &Arc<Snapshots>) -> Result<()> {
    for table in Table::ALL {
        let sealed = Arc::new(SealedTable::new(table, Arc::clone(snapshots)));
        let provider: Arc<dyn TableProvider> = match table {
            Table::Events => Arc::new(EventsTable::new(context, sealed)?),
            Table::Rejects | Table::Alerts | Table::Activity => sealed,
        };
        context.register_table(table.name(), provider)?;
    }
    Ok(())
}

/// Plans `view` over the registered tables and registers it, unless that is done already.
pub(crate) async fn plan_view(context: &SessionContext, view: &View) -> Result<()> {
    if context.table_exist(view.name)? {
        return Ok(());
    }
    let statement = gate::admit(view.sql).map_err(|error| DataFusionError::External(Box::new(error)))?;
    let plan = context.state().statement_to_plan(statement).await?;
    let definition = Some(view.sql.trim().to_owned());
    context.register_table(view.name, Arc::new(ViewTable::new(plan, definition)))?;
    Ok(())
}

/// Returns the names of all tables and views.
pub(crate) fn names() -> Vec<String> {
    let tables = Table::ALL.iter().map(|table| table.name().to_owned());
    tables.chain(VIEWS.iter().map(|view| view.name.to_owned())).collect()
}
