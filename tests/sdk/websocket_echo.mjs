// A WebSocket echo with permessage-deflate, for the Autobahn suite. Prints its port.
//
//   node tests/sdk/websocket_echo.mjs

import { WebSocketServer } from "ws";

// Small messages are compressed too, and none is too big: only the suite ends a connection.
const server = new WebSocketServer({
  host: "127.0.0.1",
  port: 0,
  perMessageDeflate: { threshold: 0 },
  maxPayload: 64 << 20,
});
server.on("listening", () => console.log(server.address().port));
server.on("connection", (connection) => {
  connection.on("message", (data, binary) => connection.send(data, { binary }));
  // What a client does against the protocol is answered by the library.
  connection.on("error", () => {});
});
