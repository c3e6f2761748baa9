// The Live API of @google/genai through Chaperone, to a server here: the simulator speaks no WebSocket.

import assert from 'node:assert/strict';
import { GoogleGenAI } from '@google/genai';
import { WebSocketServer } from 'ws';
import * as checks from './checks.mjs';
import { MODEL, marker } from './checks.mjs';

const PROXY = process.env.CHAPERONE_LIVE_URL;
const PATH = '/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent';

// What each session of the server has been told, and how it was asked for.
const sessions = [];
const server = new WebSocketServer({ host: '127.0.0.1', port: Number(process.env.LIVE_PORT) });
server.on('connection', (socket, request) => {
  const session = { url: request.url, headers: request.headers, said: [], closed: false };
  sessions.push(session);
  const say = (message) => socket.send(Buffer.from(JSON.stringify(message)));
  socket.on('close', () => (session.closed = true));
  socket.on('message', (data) => {
    const message = JSON.parse(data.toString());
    session.said.push(message);
    if (message.setup) say({ setupComplete: {} });
    if (message.clientContent) {
      const { text } = message.clientContent.turns.at(-1).parts[0];
      say({ serverContent: { modelTurn: { role: 'model', parts: [{ text: `Echo: ${text}` }] } } });
      say({ serverContent: { turnComplete: true } });
    }
  });
});

async function connected(user, onmessage, onclose = () => {}) {
  const httpOptions = { baseUrl: PROXY, headers: { 'x-chaperone-user': user } };
  const sdk = new GoogleGenAI({ apiKey: checks.API_KEY, vertexai: false, httpOptions });
  return sdk.live.connect({ model: MODEL, config: { responseModalities: ['TEXT'] }, callbacks: { onmessage, onclose } });
}

await checks.run({
  async a_session_passes_and_is_recorded() {
    const user = marker();
    let text = '';
    let turns = 0;
    const session = await connected(user, ({ serverContent }) => {
      text += serverContent?.modelTurn?.parts?.[0]?.text ?? '';
      turns += serverContent?.turnComplete ? 1 : 0;
    });
    for (const turn of [1, 2]) {
      session.sendClientContent({ turns: `Good morning, ${turn}.`, turnComplete: true });
      await checks.eventually(() => turns === turn, `no answer to turn ${turn}`);
    }
    assert.equal(text, 'Echo: Good morning, 1.Echo: Good morning, 2.');
    const there = sessions.at(-1);
    // The SDK puts a slash too many in front.
    assert(there.url.replace(/^\/+/, '/').startsWith(PATH), there.url);
    assert(!Object.keys(there.headers).some((name) => name.startsWith('x-chaperone')), 'headers went upstream');
    session.close();
    await checks.eventually(() => there.closed, 'the server was not told of the end');
    const recorded = async () => (await checks.executions(user))[0]?.outcome === 'success';
    await checks.eventually(recorded, 'the session is not recorded');
  },

  async the_upstream_ends_a_session() {
    let closed = false;
    await connected(marker(), () => {}, () => (closed = true));
    for (const socket of server.clients) socket.close(1011, 'over');
    await checks.eventually(() => closed, 'the client was not told of the end');
  },
});
