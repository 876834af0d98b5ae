// node page.js ws://localhost:PORT/rsocket TOKEN

const WebSocket = globalThis.WebSocket ?? require('ws'); // browsers have their own
const {RSocketConnector} = require('rsocket-core');
const {WebsocketClientTransport} = require('rsocket-websocket-client');
const {
  WellKnownMimeType: {
    MESSAGE_RSOCKET_AUTHENTICATION,
    MESSAGE_RSOCKET_COMPOSITE_METADATA,
    MESSAGE_RSOCKET_ROUTING,
  },
  encodeBearerAuthMetadata,
  encodeCompositeMetadata,
  encodeRoute,
} = require('rsocket-composite-metadata');

const [url, token] = process.argv.slice(2);
const bearer = encodeBearerAuthMetadata(token);
const connector = new RSocketConnector({
  transport: new WebsocketClientTransport({url, wsCreator: (address) => new WebSocket(address)}),
  setup: {
    metadataMimeType: MESSAGE_RSOCKET_COMPOSITE_METADATA.string,
    dataMimeType: 'application/json',
    payload: {data: null, metadata: encodeCompositeMetadata([[MESSAGE_RSOCKET_AUTHENTICATION, bearer]])},
  },
});

function ask(rsocket, route, value) {
  const metadata = encodeCompositeMetadata([[MESSAGE_RSOCKET_ROUTING, encodeRoute(route)]]);
  return new Promise((onNext, onError) =>
    rsocket.requestResponse(
      {data: Buffer.from(JSON.stringify(value)), metadata},
      {onError, onNext: ({data}) => onNext(JSON.parse(data)), onComplete() {}, onExtension() {}},
    ),
  );
}

async function main() {
  const rsocket = await connector.connect();
  rsocket.onClose((error) => console.log(`closed: ${error.message}`));
  console.log(await ask(rsocket, 'echo.request', {hello: 'broker'}));
  await ask(rsocket, 'sessions.login', {name: 'mine'}).catch((error) => console.log(`refused: ${error.message}`));
}

main();
