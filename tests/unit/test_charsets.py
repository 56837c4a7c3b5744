"""Encodings: texts in twenty languages are encoded, and come back; damaged UTF-8 stays UTF-8."""

import gzip

import pytest

from reviewgen.data.charsets import recognise
from reviewgen.data.files import prepare_files

TEXTS = {
    "cp1252 French": "Le dîner était très agréable malgré la pluie. Nous avons commandé des crêpes et un thé glacé, puis le "
    "garçon "
    "nous a apporté l'addition. Les prix étaient élevés, mais la qualité est là. C'est déjà la troisième fois que je viens.",
    "cp1252 German": "Das Essen war köstlich, aber die Straße vor dem Haus ist sehr laut. Für Gäste, die früh schlafen möchten, "
    "ist "
    "das Zimmer nichts. Wir haben übrigens schöne Bücher im Flur gefunden und müssten eigentlich länger bleiben.",
    "cp1252 Spanish": "¡Qué película más buena! El niño corrió hacia la montaña y el público lloró. "
    "La música también es magnífica.",
    "cp1252 Swedish": "Filmen är väldigt bra och skådespelarna gör ett bra jobb. Jag tyckte att slutet var förutsägbart men ändå "
    "rörande. På kvällen åt vi på en restaurang där maten var god.",
    "cp1252 English": "It’s a “great” film – really. I didn’t expect it, but the café scene was moving. I’d see it again. " * 2,
    "cp1250 Polish": "Ten film był świetny, a gra aktorów bardzo dobra. Źle się stało, że nie mogłem zostać dłużej. Książka jest "
    "jednak lepsza, bo więcej się w niej dzieje. Myślę, że każdy powinien ją przeczytać, zanim pójdzie do kina.",
    "cp1254 Turkish": "Film çok güzeldi, ışık ve müzik şahane. Oyuncular da iyiydi ama senaryo biraz zayıf kalmış. Yine de "
    "arkadaşlarıma öneririm, çünkü böyle filmler artık çekilmiyor. Gişede ne kadar kazandığını bilmiyorum.",
    "cp1251 Russian": "Фильм был очень хороший, мне понравилось. Актёры играли прекрасно, хотя конец немного предсказуем.",
    "koi8_r Russian": "Фильм был очень хороший, мне понравилось. Актёры играли прекрасно, хотя конец немного предсказуем.",
    "cp1253 Greek": "Η ταινία ήταν πολύ καλή και οι ηθοποιοί έπαιξαν υπέροχα. Το τέλος όμως ήταν λίγο προβλέψιμο.",
    "cp1255 Hebrew": "הסרט היה טוב מאוד והשחקנים שיחקו נהדר. הסוף היה קצת צפוי אבל בכל זאת נהניתי.",
    "cp1256 Arabic": "كان الفيلم جيدا جدا وقد أدى الممثلون أدوارهم بشكل رائع. النهاية كانت متوقعة قليلا.",
    "cp874 Thai": "หนังเรื่องนี้สนุกมาก นักแสดงเล่นดี แต่ตอนจบเดาได้ง่ายไปหน่อย อาหารในโรงหนังก็อร่อย",
    "cp932 Japanese": "この映画はとても面白かったです。俳優の演技も素晴らしく、音楽も良かった。"
    "ただ、終わり方は少し予想できました。また友達と見たいと思います。",
    "euc_jp Japanese": "この映画はとても面白かったです。俳優の演技も素晴らしく、音楽も良かった。"
    "ただ、終わり方は少し予想できました。また友達と見たいと思います。",
    "cp949 Korean": "이 영화는 정말 재미있었다. 배우들의 연기도 훌륭했고 음악도 좋았다. 다만 결말은 조금 예상할 수 있었다.",
    "gb18030 Chinese": "这部电影非常好看，我很喜欢。演员的表演也很精彩，音乐也很好。只是结局有点容易猜到。",
    "big5 Chinese": "這部電影非常好看，我很喜歡。演員的表演也很精彩，音樂也很好。只是結局有點容易猜到。",
}


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("times", [1, 300])
@pytest.mark.parametrize("packed", [False, True])
def test_files_of_many_languages(tmp_path, name, times, packed):
    text = f"{TEXTS[name]}\n" * times
    data = text.encode(name.split()[0])
    file = tmp_path / ("a.txt.gz" if packed else "a.txt")
    file.write_bytes(gzip.compress(data) if packed else data)
    (tmp_path / "work").mkdir()
    prepared = prepare_files([file], tmp_path / "work")
    assert prepared.paths[0].read_text(encoding="utf-8") == text
    assert prepared.decode_errors == 0
    assert f"{file} is not UTF-8 and read as" in prepared.notes[0]


@pytest.mark.parametrize("text", ["café déjà", "Ça va très bien", "crème brûlée", "One naïve word", "It’s – fine", "señor"])
def test_short_western_texts_are_windows_1252(text):
    assert recognise([text.encode("cp1252")]) == "cp1252"


def test_the_accents_may_be_rare_and_come_late():
    lines = [b"The plot is simple and the actors do what they can with it.\n"] * 50_000 + [
        "The café was fine.\n".encode("cp1252")
    ]
    assert recognise(lines) == "cp1252"


@pytest.mark.parametrize("name", TEXTS)
def test_valid_utf8_is_utf8(tmp_path, name):
    (tmp_path / "a.txt").write_text(TEXTS[name], encoding="utf-8")
    prepared = prepare_files([tmp_path / "a.txt"], tmp_path)
    assert prepared.paths[0].is_symlink() or prepared.paths[0].name == "a.txt"
    assert (prepared.notes, prepared.decode_errors) == ([], 0)


@pytest.mark.parametrize(
    "data",
    [
        b"caf\xc3\xa9 and caf\xe9",
        "ดี ".encode() * 20 + b"\xff",
        "naïve ".encode() * 5 + b"\xe0\xb8",  # cut in a character
        b"\xff",
        b"\xfe\xfd!\n\xe9\n",
        b"\xed\xa0\xbd\xed\xb8\x80 and " + "é".encode() * 9,  # CESU-8
        b"\x81\x8d\x8f\x90\x9d words and words",
        b"",
        b"ascii",
    ],
)
def test_damaged_utf8_and_what_fits_nothing(data):
    assert recognise([data]) is None


def test_the_lines_may_be_long(tmp_path):
    """A sample of long lines is made of their beginnings."""
    text = "[" + ", ".join(f'"Das Frühstück Nummer {number} war köstlich."' for number in range(400)) + "]"
    (tmp_path / "a.txt").write_bytes(text.encode("latin-1"))
    (tmp_path / "out").mkdir()
    prepared = prepare_files([tmp_path / "a.txt"], tmp_path / "out")
    assert prepared.decode_errors == 0 and prepared.paths[0].read_text(encoding="utf-8") == text
