from reviewgen.look.graph import GraphPicture, draw, graph
