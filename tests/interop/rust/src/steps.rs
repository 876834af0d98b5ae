//! The requests of the client, by the names that scenario.toml gives them.

use futures::stream::iter;
use rsocket_rust::prelude::*;
use rsocket_rust::{Client, Result};
use serde_json::{json, Value};

use crate::wire::{data, failure, no, parse, payload, route_of, to};

const LARGE: usize = 200_000;

/// The library asks for 2^31 - 1 payloads and lets nobody ask for less; it has no way to cancel a request-response.
pub const UNABLE: [(&str, &str); 2] = [
    ("stream-credit", "rsocket_rust has no request-n"),
    (
        "response-cancel",
        "rsocket_rust sends no CANCEL for a request-response",
    ),
];

pub struct Steps(pub Client);

impl Steps {
    pub async fn take(&self, step: &str) -> Result<Value> {
        if let Some((_, why)) = UNABLE.iter().find(|(name, _)| *name == step) {
            return Err(rsocket_rust::error::RSocketError::WithDescription(why.to_string()).into());
        }
        match step {
            "response" => self.response().await,
            "response-empty" => Ok(json!({"size": self.ask("echo.request", vec![]).await?.len()})),
            "response-error" => self.refused("echo.error").await,
            "response-invalid" => Ok(json!({"code": self.refused("echo.nowhere").await?["code"]})),
            "response-fragments" => self.response_fragments().await,
            "fire" => self.fire(vec![]).await,
            "fire-fragments" => self.fire(pattern()).await,
            "push" => self.push().await,
            "stream" => sizes(self.stream("echo.stream", "7:100")).await,
            "stream-cancel" => self.some(self.stream("interop.numbers", ""), 5).await,
            "stream-error" => failing(self.stream("echo.stream-error", "3:10")).await,
            "stream-fragments" => sizes(self.stream("echo.stream", "1:16777215")).await,
            "channel" => self.channel_of_three().await,
            "channel-credit" => self.channel_of_many().await,
            "channel-fragments" => {
                sizes(self.channel("echo.channel", vec![pattern(), pattern()])).await
            }
            "channel-error" => failing(self.channel("interop.once", numbers(2))).await,
            "channel-fails" => self.channel_fails().await,
            "channel-cancel" => self.some(self.channel("interop.chat", numbers(1)), 3).await,
            _ => self.call("interop.drive", json!({"step": step})).await,
        }
    }

    async fn response(&self) -> Result<Value> {
        let request = to(
            "echo.request",
            vec![0x00, 0xff, 0x68, 0x65, 0x6c, 0x6c, 0x6f],
        );
        let answer = self.0.request_response(request).await?.expect("an answer");
        let route = route_of(&answer);
        let hex: String = data(answer)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        Ok(json!({"data": hex, "route": route}))
    }

    async fn response_fragments(&self) -> Result<Value> {
        let answer = self.ask("echo.request", pattern()).await?;
        Ok(json!({"size": answer.len(), "same": answer == pattern()}))
    }

    async fn fire(&self, data: Vec<u8>) -> Result<Value> {
        self.0.fire_and_forget(to("interop.fired", data)).await?;
        Ok(json!({"heard": self.heard("fired").await?}))
    }

    async fn push(&self) -> Result<Value> {
        self.0.metadata_push(to("interop.pushed", vec![])).await?;
        Ok(json!({"heard": self.heard("pushed").await?}))
    }

    /// The first so many of an endless stream, which is then dropped.
    async fn some(&self, mut answers: Flux<Result<Payload>>, limit: usize) -> Result<Value> {
        let mut received = 0;
        while received < limit {
            answers.next().await.expect("more")?;
            received += 1;
        }
        drop(answers);
        Ok(json!({"received": received, "stopped": self.heard("numbers").await?}))
    }

    async fn channel_of_three(&self) -> Result<Value> {
        let words = ["one", "two", "three"].map(Vec::from).to_vec();
        let answers = all(self.channel("echo.channel", words)).await?;
        let texts: Vec<_> = answers
            .iter()
            .map(|answer| String::from_utf8_lossy(answer))
            .collect();
        Ok(json!({"data": texts}))
    }

    async fn channel_of_many(&self) -> Result<Value> {
        let answers = all(self.channel("echo.channel", numbers(100))).await?;
        Ok(json!({"received": answers.len(), "in_order": answers == numbers(100)}))
    }

    async fn channel_fails(&self) -> Result<Value> {
        let values = self
            .requests("interop.listen", numbers(3))
            .chain(iter([Err(no())]));
        let answers = self.0.request_channel(Box::pin(values));
        let heard = self.heard("listen").await?;
        drop(answers);
        Ok(json!({"heard": heard}))
    }

    async fn ask(&self, route: &str, data_: Vec<u8>) -> Result<Vec<u8>> {
        let answer = self.0.request_response(to(route, data_)).await?;
        Ok(answer.map(data).unwrap_or_default().to_vec())
    }

    async fn call(&self, route: &str, value: Value) -> Result<Value> {
        Ok(parse(&self.ask(route, value.to_string().into()).await?))
    }

    async fn heard(&self, name: &str) -> Result<Value> {
        self.call("interop.heard", json!({"name": name})).await
    }

    async fn refused(&self, route: &str) -> Result<Value> {
        let refused = self.ask(route, vec![]).await;
        Ok(refused.map_or_else(|error| failure(&error), |answer| json!({"answer": answer})))
    }

    fn stream(&self, route: &str, data: &str) -> Flux<Result<Payload>> {
        self.0.request_stream(to(route, data))
    }

    fn channel(&self, route: &str, values: Vec<Vec<u8>>) -> Flux<Result<Payload>> {
        self.0
            .request_channel(Box::pin(self.requests(route, values)))
    }

    /// Payloads for a channel. The first says where to; before each of the others something else is asked and answered,
    /// and the broker, which has come to this channel meanwhile, has asked for more: the library does not look.
    fn requests(&self, route: &str, values: Vec<Vec<u8>>) -> impl Stream<Item = Result<Payload>> {
        let (client, route) = (self.0.clone(), route.to_string());
        iter(values.into_iter().enumerate()).then(move |(index, value)| {
            let (client, route) = (client.clone(), route.clone());
            async move {
                if index == 0 {
                    return Ok(to(&route, value));
                }
                client.request_response(to("echo.request", vec![])).await?;
                Ok(payload(value))
            }
        })
    }
}

async fn all(mut answers: Flux<Result<Payload>>) -> Result<Vec<Vec<u8>>> {
    let mut received = vec![];
    while let Some(answer) = answers.next().await {
        received.push(data(answer?).to_vec());
    }
    Ok(received)
}

async fn sizes(answers: Flux<Result<Payload>>) -> Result<Value> {
    let sizes: Vec<_> = all(answers).await?.iter().map(Vec::len).collect();
    Ok(json!({"sizes": sizes}))
}

async fn failing(mut answers: Flux<Result<Payload>>) -> Result<Value> {
    let mut received = 0;
    while let Some(answer) = answers.next().await {
        if let Err(error) = answer {
            let ended = failure(&error);
            return Ok(json!({"received": received, "code": ended["code"], "text": ended["text"]}));
        }
        received += 1;
    }
    Ok(json!({"received": received}))
}

fn numbers(count: usize) -> Vec<Vec<u8>> {
    (0..count)
        .map(|number| number.to_string().into_bytes())
        .collect()
}

fn pattern() -> Vec<u8> {
    (0..LARGE).map(|index| (index % 251) as u8).collect()
}
