export async function start(engine) {
  document.title = (await engine.models())[0].id;
}
