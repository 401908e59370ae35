"""Slides are made of a chapter's page: what they show, and what they leave out."""

from __future__ import annotations

import re

from test_site_extensions import extension

PAGE = """
<article class="bd-article"><section id="title"><h1>On \\(d\\)<a class="headerlink">#</a></h1>
<div class="admonition-in-this-chapter admonition"><p class="admonition-title">In this chapter</p>
<p><strong>You will be able to</strong> count.</p><p><strong>You need</strong> fingers.</p></div>
<section id="idea"><h2>The idea<a class="headerlink">#</a></h2>
<p>One is first. Two follows. {long} Ten is too late.</p>
<p>So we find, <em>e.g. here</em>:</p>
<div class="math" id="equation-x"><span class="eqno">(1)</span>\\[ a = b \\]</div>
<p>where \\(a\\) is known. The rest is silence.</p>
<div class="admonition-predict-then-run admonition">
<p class="admonition-title">Predict, then run</p>
<p>How many?</p></div>
<div class="proof theorem admonition" id="thm-a"><p class="admonition-title">Theorem 1</p>
<section id="proof-content"><p>All is well, see <a href="#idea">there</a> and
<a href="other.html#x">elsewhere</a>.</p></section></div>
<div class="proof dropdown admonition"><p class="admonition-title">Proof</p>
<section><p>By magic.</p></section></div>
<div class="cell container"><div class="cell_input"><pre>def f():
    return 1</pre></div></div>
<div class="cell container"><div class="cell_input"><pre>x = f()</pre></div></div>
<div class="cell tag_hide-cell container"><div class="cell_input">
<pre>def g(): pass</pre></div></div>
<div class="cell container"><div class="cell_output"><figure id="fig-a"><img alt="A curve."
src="../_images/a.svg"/><figcaption>Fig. 1</figcaption></figure></div></div>
<div class="cell container"><div class="cell_output"><div class="output text_html">
<div class="zo-explorable" id="zo-1"><p id="zo-1-title">Move</p></div>
<script>let a = 1 < 2;</script>
</div></div></div></section>
<section id="try-it"><h2>Try it</h2><p>With a live kernel.</p></section>
<section id="exercises"><h2>Exercises</h2><div class="exercise admonition" id="ex-a">
<p class="admonition-title">Exercise 1</p><section><p>Count.</p></section></div>
<div class="solution dropdown admonition"><p>One, two.</p></div></section>
<section id="summary"><h2>Summary</h2><ul>{items}</ul></section>
<section id="what-to-read-next"><h2>What to read next</h2><p>Books.</p></section>
</section></article>
""".format(
    long=" ".join(f"Sentence {n} says what there is to say about it." for n in range(9)),
    items="".join(f"<li><p>Point {n}.</p></li>" for n in range(6)),
)


def test_a_chapter_becomes_slides() -> None:
    module = extension("slides")
    title, found = module.slides(PAGE, "book/chapter")
    assert title == "On \\(d\\)"
    shown = [re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", slide.html)).strip() for slide in found]
    beginnings = [
        "On \\(d\\) You will be able to",
        "The idea One is first. Two follows.",
        "So we find, e.g. here : \\[ a = b \\] where \\(a\\) is known.",
        "Predict, then run How many?",
        "Theorem 1 All is well",
        "def f(): return 1",
        "Fig. 1",
        "Move let a",
        "Exercises",
        "Exercise 1 Count.",
        "Summary Point 0. Point 1. Point 2. Point 3.",
        "Summary Point 4. Point 5.",
    ]
    if len(shown) == len(beginnings) - 1:  # a section without text has no slide of its own
        beginnings.remove("Exercises")
    assert len(shown) == len(beginnings)
    for text, beginning in zip(shown, beginnings, strict=True):
        assert text.startswith(beginning)


def test_what_a_lecture_does_not_show() -> None:
    module = extension("slides")
    _, found = module.slides(PAGE, "book/chapter")
    html = module.rendered("On \\(d\\)", found, "book/chapter")
    for word in (
        "By magic",
        "One, two",
        "fingers",
        "def g",
        "x = f",
        "Books",
        "a live kernel",
        "Ten is",
        "(1)",
    ):
        assert word not in html
    assert "<title>Slides: On d</title>" in html
    assert 'href="../book/chapter.html#idea"' in html
    assert 'href="../book/other.html#x"' in html
    assert "let a = 1 < 2;" in html  # scripts are as they were
    assert html.count('id="zo-1"') == 1
    assert "fig-a" not in html  # names are those of the slides: no two alike
    names = re.findall(r' id="([^"]+)"', html)
    assert len(names) == len(set(names))
    assert not re.search(r'(?:src|href)="https?:', html)


def test_a_page_that_is_no_chapter_has_none() -> None:
    article = '<article class="bd-article"><section><h1>API</h1><p>x</p></section></article>'
    assert extension("slides").slides(article, "book/api") == ("", [])
