//! Connections and bindings: listed, counted, ended, followed.

mod events;
mod filter;
mod groups;
mod reporter;
mod rows;

use std::cmp::Reverse;

use self::filter::{Filter, is_filter, parse_number, refuse_others, takes_all};
pub use self::reporter::Reporter;
use super::Switch;
use crate::{
    Refusal,
    api::types::{Binding, Connection, ConnectionQuery},
    datapath,
    error::Result,
    state::Runtime,
};

/// The words that bindings are chosen by.
const BINDING_WORDS: [&str; 4] = ["network", "proto", "src", "outside"];

impl Switch {
    pub async fn connections(&self, query: &ConnectionQuery) -> Result<Vec<Connection>> {
        refuse_others(query, |word| word != "all", "list")?;
        let order = query.sort.as_deref().map(parse_order).transpose()?;
        let limit = query.limit.as_deref().map(|text| parse_number("--limit", text)).transpose()?;
        let limit = limit.map_or(usize::MAX, |limit| limit as usize);
        let (filter, runtime) = self.filter(query).await?;
        let read = move |tables: &datapath::Tables| {
            // Without an order any will do.
            let mut room = if order.is_some() { usize::MAX } else { limit };
            let mut rows = tables.connections(|row| {
                let wanted = room > 0 && filter.matches(row);
                room -= usize::from(wanted);
                wanted
            })?;
            if let Some(order) = order {
                rows.sort_by_key(order);
            }
            rows.truncate(limit);
            Ok(rows)
        };
        let rows = self.blocking(read).await?;
        Ok(rows.iter().map(|row| rows::connection(row, &runtime)).collect())
    }

    pub async fn connection_count(&self, query: &ConnectionQuery) -> Result<u64> {
        refuse_others(query, is_filter, "count")?;
        let takes_all = takes_all(query);
        let (filter, _) = self.filter(query).await?;
        let count = move |tables: &datapath::Tables| {
            if takes_all {
                return tables.connection_count();
            }
            let mut count = 0;
            tables.connections(|row| {
                count += usize::from(filter.matches(row));
                false
            })?;
            Ok(count)
        };
        Ok(self.blocking(count).await? as u64)
    }

    /// Ends connections; returns how many.
    pub async fn flush_connections(&self, query: &ConnectionQuery) -> Result<u64> {
        refuse_others(query, |word| is_filter(word) || word == "all", "flush")?;
        match (takes_all(query), query.all.as_deref()) {
            (true, Some("true")) | (false, None) => {}
            (true, _) => return Err(Refusal::FlushOfAll.into()),
            (false, Some(_)) => return Err(Refusal::FlushOfAllFiltered.into()),
        }
        let (filter, _) = self.filter(query).await?;
        let ended = self.blocking(move |tables| tables.flush_connections(|row| filter.matches(row))).await?;
        Ok(ended as u64)
    }

    pub async fn bindings(&self, query: &ConnectionQuery) -> Result<Vec<Binding>> {
        refuse_others(query, |word| BINDING_WORDS.contains(&word), "bindings")?;
        let (filter, runtime) = self.filter(query).await?;
        let rows = self.blocking(move |tables| tables.bindings(|row| filter.matches_binding(row))).await?;
        Ok(rows.iter().map(|row| rows::binding(row, &runtime)).collect())
    }

    async fn filter(&self, query: &ConnectionQuery) -> Result<(Filter, Runtime)> {
        let asked = self.asked().await;
        Ok((Filter::new(query, &asked)?, asked.runtime))
    }

    /// Reads as much as there is, off the threads that answer.
    async fn blocking<T: Send + 'static>(
        &self,
        read: impl FnOnce(&datapath::Tables) -> Result<T, datapath::TableError> + Send + 'static,
    ) -> Result<T> {
        let tables = self.tables().clone();
        match tokio::task::spawn_blocking(move || read(&tables)).await {
            Ok(result) => Ok(result?),
            Err(error) => Err(crate::Error::Setup(format!("reading the connections: {error}"))),
        }
    }
}

type Order = fn(&datapath::Connection) -> Reverse<u32>;

/// What comes first: the oldest, the longest idle, the next to expire.
fn parse_order(text: &str) -> Result<Order, Refusal> {
    match text {
        "age" => Ok(|row| Reverse(row.age_seconds)),
        "idle" => Ok(|row| Reverse(row.idle_seconds)),
        "expiry" => Ok(|row| Reverse(u32::MAX - row.expires_in_seconds)),
        _ => filter::bad(format!("'{}' is no order: --sort takes age, idle or expiry", filter::shown(text))),
    }
}
