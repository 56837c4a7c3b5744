"""Encodings: texts in many languages that are encoded in one of their usual ways come back; damaged UTF-8 stays UTF-8."""

import gzip

import pytest

from tests.support.texts import corpus_of, write

TEXTS = {
    "cp1252 French": "Le dîner était très agréable malgré la pluie. Nous avons commandé des crêpes et un thé glacé, puis le "
    "garçon nous a apporté l'addition. Les prix étaient élevés, mais la qualité est là. C'est déjà la troisième fois.",
    "cp1250 Polish": "Ten film był świetny, a gra aktorów bardzo dobra. Źle się stało, że nie mogłem zostać dłużej. Książka jest "
    "jednak lepsza, bo więcej się w niej dzieje. Myślę, że każdy powinien ją przeczytać, zanim pójdzie do kina.",
    "cp1254 Turkish": "Film çok güzeldi, ışık ve müzik şahane. Oyuncular da iyiydi ama senaryo biraz zayıf kalmış. Yine de "
    "arkadaşlarıma öneririm, çünkü böyle filmler artık çekilmiyor. Gişede ne kadar kazandığını bilmiyorum.",
    "cp1251 Russian": "Фильм был очень хороший, мне понравилось. Актёры играли прекрасно, хотя конец немного предсказуем.",
    "cp932 Japanese": "この映画はとても面白かったです。俳優の演技も素晴らしく、音楽も良かった。"
    "ただ、終わり方は少し予想できました。また友達と見たいと思います。",
    "cp949 Korean": "이 영화는 정말 재미있었다. 배우들의 연기도 훌륭했고 음악도 좋았다. 다만 결말은 조금 예상할 수 있었다.",
    "gb18030 Chinese": "这部电影非常好看，我很喜欢。演员的表演也很精彩，音乐也很好。只是结局有点容易猜到。",
    "big5 Chinese": "這部電影非常好看，我很喜歡。演員的表演也很精彩，音樂也很好。只是結局有點容易猜到。",
}


TEXTS |= {"koi8_r Russian": TEXTS["cp1251 Russian"], "euc_jp Japanese": TEXTS["cp932 Japanese"]}


@pytest.mark.parametrize("name", TEXTS)
def test_files_of_many_languages(tmp_path, name):
    for number, times in enumerate((1, 300)):
        data = f"{TEXTS[name]}\n".encode(name.split()[0]) * times
        file = tmp_path / ("a.txt.gz" if number else "a.txt")
        read = corpus_of(write(file, data), clean=False)
        assert (read.texts, read.report.decode_errors) == ([TEXTS[name]] * times, 0)
        assert f"{file} is not UTF-8 and read as" in read.notes[0]
    read = corpus_of(write(tmp_path / "a.txt", TEXTS[name]), clean=False)
    assert (read.texts, read.notes, read.report.decode_errors) == ([TEXTS[name]], [], 0)


def test_damaged_utf8_and_what_fits_nothing_is_read_as_utf8(tmp_path):
    for data in [
        b"caf\xc3\xa9 and caf\xe9",
        "ดี ".encode() * 20 + b"\xff",
        "naïve ".encode() * 5 + b"\xe0\xb8",  # cut in a character
        b"\xff",
        b"\xfe\xfd!\n\xe9\n",
        b"\xed\xa0\xbd\xed\xb8\x80 and " + "é".encode() * 9,  # CESU-8
        b"\x81\x8d\x8f\x90\x9d words and words",
    ]:
        (tmp_path / "a.txt.gz").write_bytes(gzip.compress(data))
        read = corpus_of(tmp_path / "a.txt.gz", clean=False)
        assert read.notes == [] and read.report.decode_errors > 0 and "\ufffd" in "".join(read.texts)
