//! A client on rsocket-rust: interop-rsocket-rust tls://localhost:8088 DIRECTORY STEP...
//!
//! DIRECTORY has privateKey.pem, device.crt and sonarCA.crt.

mod responder;
mod steps;
mod wire;

use std::error::Error;
use std::fs::read;
use std::net::ToSocketAddrs;
use std::path::Path;
use std::time::Duration;

use native_tls::{Certificate, Identity, TlsConnector};
use rsocket_rust::extension::MimeType;
use rsocket_rust::prelude::*;
use rsocket_rust::Client;
use rsocket_rust_transport_tcp::TlsClientTransport;
use serde_json::json;

const FRAGMENT: usize = 1024;
const STEP_LIMIT: Duration = Duration::from_secs(40);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let steps = steps::Steps(connect(&arguments[1], Path::new(&arguments[2])).await?);
    for step in &arguments[3..] {
        let (ok, detail) = match tokio::time::timeout(STEP_LIMIT, steps.take(step)).await {
            Ok(Ok(detail)) => (true, detail),
            Ok(Err(error)) => (false, json!(error.to_string())),
            Err(late) => (false, json!(late.to_string())),
        };
        println!("{}", json!({"step": step, "ok": ok, "detail": detail}));
    }
    Ok(())
}

async fn connect(url: &str, directory: &Path) -> Result<Client, Box<dyn Error>> {
    let place = url.trim_start_matches("tls://");
    let (host, _) = place.split_once(':').ok_or("a URL is tls://HOST:PORT")?;
    let file = |name: &str| read(directory.join(name));
    let tls = TlsConnector::builder()
        .disable_built_in_roots(true)
        .add_root_certificate(Certificate::from_pem(&file("sonarCA.crt")?)?)
        .identity(Identity::from_pkcs8(
            &file("device.crt")?,
            &file("privateKey.pem")?,
        )?)
        .build()?;
    let address = place.to_socket_addrs()?.next().ok_or("no such host")?;
    let client = RSocketFactory::connect()
        .transport(TlsClientTransport::new(host.into(), address, tls.into()))
        .metadata_mime_type(MimeType::MESSAGE_X_RSOCKET_COMPOSITE_METADATA_V0)
        .data_mime_type(MimeType::APPLICATION_OCTET_STREAM)
        .keepalive(Duration::from_secs(10), Duration::from_secs(60), 1)
        .fragment(FRAGMENT)
        .acceptor(Box::new(|| Box::new(responder::App::default())))
        .start()
        .await?;
    Ok(client)
}
