//! Routes, payloads, JSON and errors.

use bytes::{Bytes, BytesMut};
use rsocket_rust::error::RSocketError;
use rsocket_rust::extension::{CompositeMetadata, MimeType, RoutingMetadata};
use rsocket_rust::prelude::Payload;
use rsocket_rust::utils::Writeable;
use serde_json::{json, Value};

pub const NO: &str = "the client says no";

pub fn to(route: &str, data: impl Into<Vec<u8>>) -> Payload {
    let routing = RoutingMetadata::builder().push_str(route).build();
    let metadata = CompositeMetadata::builder()
        .push(MimeType::MESSAGE_X_RSOCKET_ROUTING_V0, routing.bytes())
        .build();
    Payload::builder()
        .set_data(data)
        .set_metadata(metadata.bytes())
        .build()
}

pub fn payload(data: impl Into<Vec<u8>>) -> Payload {
    Payload::builder().set_data(data).build()
}

pub fn answer(value: Value) -> Payload {
    payload(value.to_string())
}

pub fn route_of(payload: &Payload) -> String {
    let mut metadata = BytesMut::from(payload.metadata().map_or(&[][..], |found| &found[..]));
    let parsed = CompositeMetadata::decode(&mut metadata).expect("composite metadata");
    let entry = parsed
        .iter()
        .find(|entry| *entry.get_mime_type() == MimeType::MESSAGE_X_RSOCKET_ROUTING_V0)
        .expect("a route");
    let tags = RoutingMetadata::decode(&mut BytesMut::from(&entry.get_metadata()[..]));
    tags.expect("tags").get_tags()[0].clone()
}

pub fn data(payload: Payload) -> Bytes {
    payload.split().0.unwrap_or_default()
}

pub fn parse(data: &[u8]) -> Value {
    serde_json::from_slice(data).expect("JSON")
}

/// Code and text of an error that the broker sent.
pub fn failure(error: &anyhow::Error) -> Value {
    let (code, text) = match error.downcast_ref::<RSocketError>() {
        Some(RSocketError::ApplicationException(text)) => (0x201, text.as_str()),
        Some(RSocketError::RequestRejected(text)) => (0x202, text.as_str()),
        Some(RSocketError::RequestCancelled(text)) => (0x203, text.as_str()),
        Some(RSocketError::RequestInvalid(text)) => (0x204, text.as_str()),
        _ => (0, "no error of RSocket"),
    };
    json!({"code": code, "text": text})
}

pub fn no() -> anyhow::Error {
    RSocketError::WithDescription(NO.into()).into()
}
