import subprocess
import sys

from firstlight.plotting.balance import plot_class_balance


def test_a_bar_and_a_count_for_each_class():
    """E8: class balance."""
    figure = plot_class_balance(["zero", "one", "two"], [1000, 2000, 0])
    (axes,) = figure.axes
    assert [bar.get_width() for bar in axes.patches] == [1000, 2000, 0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["zero", "one", "two"]
    assert [text.get_text() for text in axes.texts] == ["1,000", "2,000", "0"]
    assert axes.get_legend().get_texts()[0].get_text() == "mean 1,000"
    assert plot_class_balance(["a", "b"], [2, 3]).axes[0].get_legend().get_texts()[0].get_text() == "mean 2.5"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("number of images", "class")
    assert figure.get_suptitle() == "3,000 images in 3 classes, 0 to 2,000 each"


def test_the_first_class_is_on_top():
    low, high = plot_class_balance(["zero", "one"], [1, 2]).axes[0].get_ylim()
    assert low > high


def test_one_class_and_two_hundred_are_drawn():
    assert len(plot_class_balance(["only"], [5]).axes[0].patches) == 1
    many = plot_class_balance([f"class {index}" for index in range(200)], [500] * 200)
    assert len(many.axes[0].texts) == 0 and many.get_figheight() < 30


def test_plotting_leaves_torch_and_pyplot_alone():
    program = (
        "import sys; from firstlight.plotting.curves import plot_curves; from firstlight.plotting import images, balance\n"
        "assert 'matplotlib' not in sys.modules\n"
        "plot_curves({'a': [{'epoch': 1, 'train_loss': 1.0}]})\n"
        "print(sorted({'torch', 'matplotlib.pyplot'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "[]\n"
