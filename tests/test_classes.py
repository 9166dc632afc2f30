from rfdetr.classes import ClassTable
from rfdetr.coco_names import COCO


def test_class_ids_are_contiguous_in_the_order_of_the_category_ids() -> None:
    table = ClassTable.from_categories([(7, "dog"), (3, "cat"), (20, "bird")])
    assert table.names == ("cat", "dog", "bird")
    assert table.category_ids == (3, 7, 20)
    assert table.class_ids == (0, 1, 2)
    assert table.name_of == {0: "cat", 1: "dog", 2: "bird"}
    assert (len(table), table.num_classes) == (3, 3)


def test_it_survives_being_written_as_plain_values() -> None:
    table = ClassTable.from_categories([(7, "dog"), (3, "cat")])
    assert ClassTable.from_dict(table.to_dict()) == table


def test_a_table_may_be_empty() -> None:
    assert ClassTable.from_categories([]).num_classes == 0


def test_names_may_repeat() -> None:
    table = ClassTable.from_categories([(1, "left"), (2, "left")])
    assert table.name_of == {0: "left", 1: "left"}


def test_the_classes_of_coco_keep_their_sparse_ids() -> None:
    assert (len(COCO), COCO.num_classes) == (80, 91)
    assert COCO.class_ids == COCO.category_ids == tuple(sorted(COCO.category_ids))
    assert (COCO.name_of[1], COCO.name_of[58], COCO.name_of[90]) == ("person", "hot dog", "toothbrush")
    assert not {0, 12, 26, 29, 30, 45, 66, 68, 69, 71, 83} & set(COCO.class_ids)
    assert len(set(COCO.names)) == 80
