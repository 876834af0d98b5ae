// A client on rsocket-js 0.0.27: node client.js tls://localhost:8088 DIRECTORY STEP...
//
// The URL may also be wss://localhost:9088/rsocket; with ?lease or ?resume at its end the session has leases or is
// resumed after a loss. DIRECTORY has privateKey.pem, device.crt and sonarCA.crt.

'use strict';

const {randomBytes} = require('crypto');
const fs = require('fs');
const path = require('path');
const {
  BufferEncoders,
  CompositeMetadata,
  Leases,
  MESSAGE_RSOCKET_COMPOSITE_METADATA,
  MESSAGE_RSOCKET_ROUTING,
  RSocketClient,
  RSocketResumableTransport,
  decodeRoutes,
  encodeCompositeMetadata,
  encodeRoute,
} = require('rsocket-core');
const {RSocketTlsClient} = require('rsocket-tcp-client');
const {default: RSocketWebSocketClient} = require('rsocket-websocket-client');
const {Flowable, Single} = require('rsocket-flowable');
const WebSocket = require('ws');
const {App, Incoming, Source, run} = require('../scenario.js');

function toRoute(route) {
  return encodeCompositeMetadata([[MESSAGE_RSOCKET_ROUTING, encodeRoute(route)]]);
}

function routeOf(metadata) {
  for (const {mimeType, content} of new CompositeMetadata(metadata)) {
    if (mimeType === MESSAGE_RSOCKET_ROUTING.string) {
      return decodeRoutes(content).next().value;
    }
  }
}

function transport(url, directory) {
  const file = (name) => fs.readFileSync(path.join(directory, name));
  const secrets = {ca: file('sonarCA.crt'), cert: file('device.crt'), key: file('privateKey.pem')};
  if (url.startsWith('wss:')) {
    const options = {url, wsCreator: (address) => new WebSocket(address, secrets)};
    return new RSocketWebSocketClient(options, BufferEncoders);
  }
  const {hostname: host, port} = new URL(url);
  return new RSocketTlsClient({host, port, noDelay: true, ...secrets}, BufferEncoders); // small frames must not wait
}

function resumable(open) {
  const options = {bufferSize: 1000000, resumeToken: randomBytes(32), sessionDurationSeconds: 60};
  const transport = new RSocketResumableTransport(open, options, BufferEncoders);
  let kind;
  transport.connectionStatus().subscribe({
    onSubscribe: (subscription) => subscription.request(Number.MAX_SAFE_INTEGER),
    onNext(status) {
      kind = status.kind;
      setTimeout(() => kind === 'NOT_CONNECTED' && transport.connect(), 100); // after a loss, and not after the end
    },
  });
  return transport;
}

function connect(url, directory, responder) {
  const open = () => transport(url, directory);
  return new RSocketClient({
    transport: url.endsWith('?resume') ? resumable(open) : open(),
    leases: url.endsWith('?lease') ? () => new Leases() : undefined,
    setup: {
      metadataMimeType: MESSAGE_RSOCKET_COMPOSITE_METADATA.string,
      dataMimeType: 'application/octet-stream',
      keepAlive: 10000,
      lifetime: 60000,
    },
    responder,
  }).connect();
}

// --- requests of the client ------------------------------------------------------------------------------------------

// A Flowable of what an async iterator yields.
function flowable(values, canceled) {
  return new Flowable((subscriber) => {
    const actions = {
      next: (data) => subscriber.onNext(Buffer.isBuffer(data) ? {data} : data),
      complete: () => subscriber.onComplete(),
      fail: (error) => subscriber.onError(error),
    };
    subscriber.onSubscribe(new Source(values, actions, canceled));
  });
}

// What the library calls a subscriber, from a taker of scenario.js.
function subscriberFor(taker) {
  return {
    onSubscribe(subscription) {
      taker.subscription = subscription;
      subscription.request(taker.credit);
    },
    onNext: (payload) => taker.next(payload.data),
    onComplete: () => taker.complete(),
    onError: (error) => taker.fail(error),
  };
}

function peerOf(rsocket) {
  const payload = (route, data) => ({data, metadata: toRoute(route)});
  return {
    routeOf,
    async ready() {
      while (rsocket.availability() === 0) {
        await new Promise((resolve) => setTimeout(resolve, 10));
      }
    },
    failure: ({source}) => ({code: source.code, text: source.message}),
    ask(route, data) {
      let cancel;
      const answer = new Promise((resolve, reject) => {
        rsocket.requestResponse(payload(route, data)).subscribe({
          onSubscribe: (given) => (cancel = given),
          onComplete: resolve,
          onError: reject,
        });
      });
      return {answer, cancel};
    },
    async fire(route, data) {
      rsocket.fireAndForget(payload(route, data));
    },
    async push(route) {
      await rsocket.metadataPush({metadata: toRoute(route)});
    },
    stream(route, data, taker) {
      rsocket.requestStream(payload(route, data)).subscribe(subscriberFor(taker));
    },
    channel(route, first, more, taker) {
      async function* all() {
        yield payload(route, first);
        yield* more;
      }
      rsocket.requestChannel(flowable(all())).subscribe(subscriberFor(taker));
    },
  };
}

// --- requests of the broker ------------------------------------------------------------------------------------------

function responderFor(app) {
  return {
    requestResponse({data, metadata}) {
      const route = routeOf(metadata);
      return new Single((subscriber) => {
        subscriber.onSubscribe(() => app.happened(route));
        app.response(route, data).then(
          (answer) => subscriber.onComplete({data: answer}),
          (error) => subscriber.onError(error),
        );
      });
    },
    fireAndForget({metadata}) {
      app.happened(routeOf(metadata));
    },
    metadataPush({metadata}) {
      app.happened(routeOf(metadata));
      return Single.of(undefined);
    },
    requestStream({data, metadata}) {
      const route = routeOf(metadata);
      return flowable(app.stream(route, data), () => app.happened(route));
    },
    requestChannel(payloads) {
      return flowable(answers(app, payloads));
    },
  };
}

// The first payload of a channel says what it is for.
async function* answers(app, payloads) {
  const {incoming, route} = await new Promise((resolve, reject) => {
    let incoming;
    let subscription;
    payloads.subscribe({
      onSubscribe(given) {
        subscription = given;
        subscription.request(1);
      },
      onNext({data, metadata}) {
        if (incoming) {
          incoming.next(data);
        } else {
          incoming = new Incoming(data, subscription);
          resolve({incoming, route: routeOf(metadata)});
        }
      },
      onComplete: () => incoming.end(),
      onError: (error) => (incoming ? incoming.end() : reject(error)),
    });
  });
  yield* app.channel(route, incoming);
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
