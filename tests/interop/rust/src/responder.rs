//! What the client answers when the broker calls.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use futures::stream::{once, unfold};
use futures::FutureExt;
use rsocket_rust::prelude::*;
use rsocket_rust::{async_trait, Result};
use serde_json::json;
use tokio::sync::Notify;

use crate::wire::{answer, data, no, parse, payload, route_of};

/// What has happened so far, for the broker to ask about.
#[derive(Clone, Default)]
pub struct App {
    notes: Arc<Mutex<HashMap<String, Arc<Notify>>>>,
    made: Arc<AtomicU64>,
}

impl App {
    fn note(&self, name: &str) -> Arc<Notify> {
        self.notes
            .lock()
            .unwrap()
            .entry(name.into())
            .or_default()
            .clone()
    }

    fn happened(&self, route: &str) {
        self.note(route.trim_start_matches("interop.")).notify_one();
    }

    fn count(&self, last: u64) -> impl Stream<Item = Result<Payload>> {
        let app = self.clone();
        futures::stream::iter(1..=last).map(move |number| {
            app.made.store(number, Ordering::Relaxed);
            Ok(answer(json!(number)))
        })
    }
}

/// Tells that a stream was dropped before its end.
struct Canceled(App, String);

impl Drop for Canceled {
    fn drop(&mut self) {
        self.0.happened(&self.1);
    }
}

#[async_trait]
impl RSocket for App {
    async fn request_response(&self, request: Payload) -> Result<Option<Payload>> {
        let route = route_of(&request);
        let given = data(request);
        match route.as_str() {
            "interop.same" => Ok(Some(payload(given))),
            "interop.add" => {
                let numbers = parse(&given);
                Ok(Some(answer(json!(
                    numbers["a"].as_i64().unwrap() + numbers["b"].as_i64().unwrap()
                ))))
            }
            "interop.size" => Ok(Some(answer(json!(given.len())))),
            "interop.made" => Ok(Some(answer(json!(self.made.load(Ordering::Relaxed))))),
            "interop.heard" => {
                self.note(parse(&given).as_str().unwrap()).notified().await;
                Ok(Some(answer(json!(true))))
            }
            "interop.never" => {
                let _canceled = Canceled(self.clone(), route);
                std::future::pending().await
            }
            _ => Err(no()),
        }
    }

    async fn fire_and_forget(&self, request: Payload) -> Result<()> {
        self.happened(&route_of(&request));
        Ok(())
    }

    async fn metadata_push(&self, request: Payload) -> Result<()> {
        self.happened(&route_of(&request));
        Ok(())
    }

    fn request_stream(&self, request: Payload) -> Flux<Result<Payload>> {
        let route = route_of(&request);
        match route.as_str() {
            "interop.numbers" => {
                let canceled = Canceled(self.clone(), route);
                let numbers = Box::pin(self.count(u64::MAX));
                Box::pin(unfold(
                    (numbers, canceled),
                    |(mut numbers, canceled)| async {
                        tokio::task::yield_now().await;
                        Some((numbers.next().await?, (numbers, canceled)))
                    },
                ))
            }
            "interop.fails" => {
                let last = parse(&data(request)).as_u64().unwrap();
                Box::pin(self.count(last).chain(once(async { Err(no()) })))
            }
            _ => Box::pin(self.count(parse(&data(request)).as_u64().unwrap())),
        }
    }

    fn request_channel(&self, mut requests: Flux<Result<Payload>>) -> Flux<Result<Payload>> {
        let doubled = |item: Result<Payload>| {
            item.map(|one| answer(json!(2 * parse(&data(one)).as_u64().unwrap())))
        };
        Box::pin(
            async move {
                let first = requests
                    .next()
                    .await
                    .expect("the request itself")
                    .expect("a payload");
                match route_of(&first).as_str() {
                    "interop.once" => once(async { Ok(first) })
                        .chain(once(async { Err(no()) }))
                        .boxed(),
                    _ => once(async { Ok(first) })
                        .chain(requests)
                        .map(doubled)
                        .boxed(),
                }
            }
            .flatten_stream(),
        )
    }
}
