"""The files of the page, as the server hands them out."""

import asyncio
import re

from aiohttp import ClientSession, web

from tml_jax.serve.static import page_routes


def test_the_page_is_whole_runs_nothing_inline_and_is_kept_to_its_own_server():
    async def run() -> None:
        app = web.Application()
        app.add_routes(page_routes())
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        base = f"http://127.0.0.1:{runner.addresses[0][1]}"
        async with ClientSession() as session:

            async def get(path: str) -> tuple[int, str, dict]:
                async with session.get(base + path) as answer:
                    return answer.status, await answer.text(), dict(answer.headers)

            status, html, headers = await get("/")
            assert status == 200 and headers["Content-Type"].startswith("text/html")
            policy = headers["Content-Security-Policy"]
            assert "default-src 'none'" in policy and "script-src 'self'" in policy and "unsafe" not in policy
            assert not re.search(r"<style|\son\w+=|\sstyle=|<script(?![^>]*\ssrc=)|https?://", html)
            found, seen = re.findall(r'(?:src|href)="(page/[^"]+)"', html), set()
            while found:  # and what those files load
                path = found.pop()
                if path in seen:
                    continue
                seen.add(path)
                status, text, headers = await get("/" + path)
                assert status == 200, path
                kinds = {"js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}
                assert headers["Content-Type"].startswith(kinds[path.rpartition(".")[2]])
                if path.endswith(".js"):
                    found += ["page/" + name for name in re.findall(r'from "\./([^"]+)"', text)]
                    found += re.findall(r'addModule\("([^"]+)"\)', text)
            assert {"page/capture_worklet.js", "page/player_worklet.js", "page/resampler.js", "page/icon.svg"} <= seen
            for path in ("/page/../server.py", "/page/%2e%2e/server.py", "/page/", "/page/none.js"):
                assert (await get(path))[0] == 404
        await runner.cleanup()

    asyncio.run(run())
