// SPDX-License-Identifier: MIT
// The JSON echo by node's http module, for server.lua: node server_node.mjs PORT
import { createServer } from 'node:http';

createServer((request, response) => {
  const pieces = [];
  request.on('data', (piece) => pieces.push(piece));
  request.on('end', () => {
    const text = JSON.stringify(JSON.parse(Buffer.concat(pieces)));
    response.writeHead(200, { 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(text) });
    response.end(text);
  });
}).listen(Number(process.argv[2]), '127.0.0.1');
