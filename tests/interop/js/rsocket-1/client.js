// A client on rsocket-js 1.0: node client.js tls://localhost:8088 DIRECTORY STEP...
//
// The URL may also be wss://localhost:9088/rsocket; with ?lease or ?resume at its end the session has leases or is
// resumed after a loss. DIRECTORY has privateKey.pem, device.crt and sonarCA.crt.

'use strict';

const {randomBytes} = require('crypto');
const fs = require('fs');
const path = require('path');
const tls = require('tls');
const {RSocketConnector} = require('rsocket-core');
const {TcpClientTransport} = require('rsocket-tcp-client');
const {WebsocketClientTransport} = require('rsocket-websocket-client');
const WebSocket = require('ws');
const {
  decodeCompositeMetadata,
  decodeRoutes,
  encodeCompositeMetadata,
  encodeRoute,
  WellKnownMimeType: {MESSAGE_RSOCKET_COMPOSITE_METADATA, MESSAGE_RSOCKET_ROUTING},
} = require('rsocket-composite-metadata');
const {App, Incoming, Source, run} = require('../scenario.js');

const FRAGMENT = 1024;

function toRoute(route) {
  return encodeCompositeMetadata([[MESSAGE_RSOCKET_ROUTING, encodeRoute(route)]]);
}

function routeOf(metadata) {
  for (const {type, content} of decodeCompositeMetadata(metadata)) {
    if (type === MESSAGE_RSOCKET_ROUTING) {
      return decodeRoutes(content).next().value;
    }
  }
}

function transport(url, directory) {
  const file = (name) => fs.readFileSync(path.join(directory, name));
  const secrets = {ca: file('sonarCA.crt'), cert: file('device.crt'), key: file('privateKey.pem')};
  if (url.startsWith('wss:')) {
    return new WebsocketClientTransport({url, wsCreator: (address) => new WebSocket(address, secrets)});
  }
  const {hostname: host, port} = new URL(url);
  const connectionOptions = {host, port, noDelay: true, ...secrets}; // small frames must not wait for each other
  return new TcpClientTransport({connectionOptions, socketCreator: (options) => tls.connect(options)});
}

// Between a loss and the next try; the library asks for a promise.
function pause() {
  return new Promise((resolve) => setTimeout(resolve, 100));
}

function connect(url, directory, responder) {
  return new RSocketConnector({
    transport: transport(url, directory),
    setup: {
      metadataMimeType: MESSAGE_RSOCKET_COMPOSITE_METADATA.string,
      dataMimeType: 'application/octet-stream',
      keepAlive: 10000,
      lifetime: 60000,
    },
    fragmentation: {maxOutboundFragmentSize: FRAGMENT},
    responder,
    lease: url.endsWith('?lease') ? {maxPendingRequests: 100} : undefined,
    resume: url.endsWith('?resume') ? {tokenGenerator: () => randomBytes(32), reconnectFunction: pause} : undefined,
  }).connect();
}

// --- requests of the client ------------------------------------------------------------------------------------------

// What the library calls a subscriber, from a taker of scenario.js.
function subscriberFor(taker) {
  return {
    onNext(payload, isComplete) {
      taker.next(payload.data || Buffer.alloc(0));
      if (isComplete) {
        taker.complete();
      }
    },
    onComplete: () => taker.complete(),
    onError: (error) => taker.fail(error),
    onExtension() {},
  };
}

function peerOf(rsocket) {
  const payload = (route, data) => ({data, metadata: toRoute(route)});
  return {
    routeOf,
    ready: async () => {}, // requests wait by themselves
    failure: (error) => ({code: error.code, text: error.message}),
    ask(route, data) {
      let request;
      const answer = new Promise((resolve, reject) => {
        const subscriber = {onNext: resolve, onError: reject, onComplete: () => resolve({}), onExtension() {}};
        request = rsocket.requestResponse(payload(route, data), subscriber);
      });
      return {answer, cancel: () => request.cancel()};
    },
    fire(route, data) {
      return new Promise((resolve, reject) => {
        rsocket.fireAndForget(payload(route, data), {onComplete: resolve, onError: reject});
      });
    },
    push(route) {
      return new Promise((resolve, reject) => {
        rsocket.metadataPush(toRoute(route), {onComplete: resolve, onError: reject});
      });
    },
    stream(route, data, taker) {
      taker.subscription = rsocket.requestStream(payload(route, data), taker.credit, subscriberFor(taker));
    },
    channel(route, first, more, taker) {
      const source = new Source(more, {
        next: (data) => taker.subscription.onNext({data}, false),
        complete: () => taker.subscription.onComplete(),
        fail: (error) => taker.subscription.onError(error),
      });
      const both = {...subscriberFor(taker), request: (n) => source.request(n), cancel: () => source.cancel()};
      taker.subscription = rsocket.requestChannel(payload(route, first), taker.credit, false, both);
    },
  };
}

// --- requests of the broker ------------------------------------------------------------------------------------------

function responderFor(app) {
  return {
    requestResponse(payload, subscriber) {
      const route = routeOf(payload.metadata);
      let canceled = false;
      app.response(route, payload.data).then(
        (data) => canceled || subscriber.onNext({data}, true),
        (error) => canceled || subscriber.onError(error),
      );
      return {
        cancel() {
          canceled = true;
          app.happened(route);
        },
        onExtension() {},
      };
    },
    fireAndForget(payload) {
      app.happened(routeOf(payload.metadata));
      return {cancel() {}};
    },
    metadataPush(metadata) {
      app.happened(routeOf(metadata));
    },
    requestStream(payload, initialN, subscriber) {
      const route = routeOf(payload.metadata);
      const source = sourceFor(app.stream(route, payload.data), subscriber, () => app.happened(route));
      source.request(initialN);
      return {request: (n) => source.request(n), cancel: () => source.cancel(), onExtension() {}};
    },
    requestChannel(payload, initialN, isComplete, peer) {
      const incoming = new Incoming(payload.data, peer);
      const source = sourceFor(app.channel(routeOf(payload.metadata), incoming), peer);
      source.request(initialN);
      return {
        onNext(next, last) {
          incoming.next(next.data);
          if (last) {
            incoming.end();
          }
        },
        onComplete: () => incoming.end(),
        onError: () => incoming.end(),
        onExtension() {},
        request: (n) => source.request(n),
        cancel: () => source.cancel(),
      };
    },
  };
}

function sourceFor(values, subscriber, canceled) {
  const actions = {
    next: (data) => subscriber.onNext({data}, false),
    complete: () => subscriber.onComplete(),
    fail: (error) => subscriber.onError(error),
  };
  return new Source(values, actions, canceled);
}

async function main([url, directory, ...steps]) {
  const rsocket = await connect(url, directory, responderFor(new App()));
  await run(peerOf(rsocket), steps);
  rsocket.close();
}

main(process.argv.slice(2)).catch((error) => {
  console.error(error);
  process.exit(1);
});
